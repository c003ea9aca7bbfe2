from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3.util.connection

from podproof.testing import Cluster
from tests.support.docs_stage import ALICE, CallingPod, Stage, serve_bob


@pytest.fixture(scope="module")
def docs_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews", "subjectaccessreviews"])
        cluster.grant("default/bob", verbs=["get"], resources=["pods", "namespaces"])
        cluster.namespace("default", labels={"env": "prod"})
        yield cluster


@pytest.fixture(scope="module")
def docs_alice(docs_cluster: Cluster) -> CallingPod:
    return docs_cluster.pod(
        "default/alice-pod",
        service_account="alice",
        addresses=[ALICE],
        labels={"team": "billing", "pod-template-hash": "7d4b9c6f5"},
        owner="ReplicaSet/alice-7d4b9c6f5",
    )


@pytest.fixture
def stage(
    docs_cluster: Cluster, docs_alice: CallingPod, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Stage]:
    """Set the stage that the documentation presupposes: see `Stage`.

    KUBECONFIG is that of Bob's service account, and the client's token that of a pod of Alice's on this machine.
    """
    stage = Stage(docs_cluster, docs_alice, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(docs_cluster.kubeconfig_for("default/bob")))
    local = docs_cluster.pod("default/alice-local", service_account="alice", addresses=["127.0.0.1"])
    (tmp_path / "token").write_text(local.token("bob"))
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", str(tmp_path / "token"))
    connect = urllib3.util.connection.create_connection
    with serve_bob(stage.statuses) as port:

        def resolve_bob(address: tuple[str, int], *arguments: Any, **options: Any) -> Any:
            return connect(("127.0.0.1", port) if address == ("bob", 80) else address, *arguments, **options)

        monkeypatch.setattr(urllib3.util.connection, "create_connection", resolve_bob)
        yield stage
    local.remove()
