"""The process of an emulated cluster: `python -m benchmarks.emulated TOKENS` serves until its stdin ends."""

from __future__ import annotations

import json
import sys
from tempfile import TemporaryDirectory

from benchmarks.fakes import AUDIENCE
from podproof.testing import Cluster


def main() -> None:
    """Serve, and say on stdout how to be reached, and so many tokens of a pod at 127.0.0.1."""
    with Cluster() as cluster, TemporaryDirectory() as directory:
        cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        cluster.grant("default/bob", verbs=["get"], resources=["pods"])
        pod = cluster.pod("default/alice-7d4b9c6f5-x2x9k", service_account="alice")
        tokens = [pod.token(audience=AUDIENCE) for _ in range(int(sys.argv[1]))]
        told = {
            "kubeconfig": str(cluster.kubeconfig_for("default/bob")),
            "mounted": str(cluster.mount(directory, "default/bob")),
            "tokens": tokens,
        }
        print(json.dumps(told), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
