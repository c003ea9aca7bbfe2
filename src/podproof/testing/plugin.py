"""The pytest plugin: fixtures that give a test its own emulated cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podproof.testing.cluster import Cluster
    from podproof.testing.inhabitants import Pod


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Give an emulated cluster, which `KUBECONFIG` names."""
    from podproof.testing.cluster import Cluster  # noqa: PLC0415 - this module is loaded in every pytest run

    with Cluster() as started:
        monkeypatch.setenv("KUBECONFIG", str(started.kubeconfig))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
        yield started


@pytest.fixture
def caller(cluster: Cluster) -> Pod:
    """Give a pod `default/caller` at 127.0.0.1."""
    return cluster.pod("default/caller", service_account="caller")
