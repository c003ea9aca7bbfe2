"""The API server of the floods in a process of its own: it counts the TokenReviews that it has at a time."""

from __future__ import annotations

import threading
import time

from benchmarks import AUDIENCE
from benchmarks.helper_process import commands, respond
from podproof.testing import Cluster


def main(callers: str, address: str, seconds: str) -> None:
    """Serve an emulated cluster, whose TokenReviews take so long; to a command, respond with the most at a time."""
    now = most = 0
    counting = threading.Lock()

    def review_slowly(response: object) -> object:
        nonlocal now, most
        with counting:
            now += 1
            most = max(most, now)
        time.sleep(float(seconds))
        with counting:
            now -= 1
        return response

    with Cluster() as cluster:
        cluster.mutate("tokenreviews", review_slowly)
        pod = cluster.pod("default/alice", service_account="alice", addresses=[address])
        tokens = [pod.token(audience=AUDIENCE) for _ in range(int(callers))]
        respond({"kubeconfig": str(cluster.kubeconfig), "tokens": tokens})
        for _ in commands():
            respond(most)
