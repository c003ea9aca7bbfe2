"""The one emulated cluster of a test process: the plugin's fixtures and `as_pod` share it."""

from __future__ import annotations

import atexit
import os
from functools import cache

from podproof.testing._emulator.cluster import Cluster


@cache
def shared_cluster() -> Cluster:
    """Return the cluster, started at the first call; it is stopped when the process ends, if it is not before."""
    cluster = Cluster().start()
    atexit.register(cluster.stop)
    return cluster


def stop_shared_cluster() -> None:
    """Stop the cluster; a later use starts another one."""
    shared_cluster().stop()
    shared_cluster.cache_clear()


def cluster_around_us() -> Cluster:
    """Return the shared cluster, which `KUBECONFIG` names from now on, if it names no other file of it."""
    cluster = shared_cluster()
    kubeconfig = cluster.kubeconfig
    if os.path.dirname(os.environ.get("KUBECONFIG", "")) != str(kubeconfig.parent):  # noqa: PTH120  it may be no path
        os.environ["KUBECONFIG"] = str(kubeconfig)
        for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
            os.environ.pop(name, None)
    return cluster
