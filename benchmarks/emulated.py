"""The process of an emulated cluster: `python -m benchmarks.emulated TOKENS` serves until its stdin ends."""

from __future__ import annotations

import json
import sys

from benchmarks.fakes import AUDIENCE
from podproof.testing import Cluster


def main() -> None:
    """Serve, and say on stdout how to be reached, and so many tokens of a pod at 127.0.0.1."""
    with Cluster() as cluster:
        pod = cluster.pod("default/alice-7d4b9c6f5-x2x9k", service_account="alice")
        tokens = [pod.token(audience=AUDIENCE) for _ in range(int(sys.argv[1]))]
        print(json.dumps({"kubeconfig": str(cluster.kubeconfig), "tokens": tokens}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
