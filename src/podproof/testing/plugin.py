"""The pytest plugin: an emulated cluster as a fixture.

```python
def test_the_app_knows_its_caller(podproof_caller):
    response = app.test_client().get("/", headers=podproof_caller.headers("bob"))
    assert response.text == "default/caller"
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podproof.testing import Cluster, EmulatedPod

__all__ = ["podproof_caller", "podproof_cluster", "podproof_cluster_session"]


@pytest.fixture(scope="session")
def _podproof_started() -> Iterator[Cluster]:
    # Here and not above: this module is loaded in every pytest run.
    from podproof.testing._as_pod import shared_cluster, stop_shared_cluster  # noqa: PLC0415

    yield shared_cluster()
    stop_shared_cluster()


@pytest.fixture
def podproof_cluster(_podproof_started: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Return the session's emulated cluster; what the test changes in it is undone after the test.

    `KUBECONFIG` names the cluster during the test. Its URL and its keys are the same in all tests, so that an app that
    is wrapped at import works in each of them. Use `fail("refuse")` instead of `stop()`.
    """
    _use(_podproof_started, monkeypatch)
    with _podproof_started.isolated() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def podproof_cluster_session(_podproof_started: Cluster) -> Iterator[Cluster]:
    """Return the emulated cluster of `podproof_cluster` for fixtures of session, package, module or class scope.

    What changes in it stays until the end of the session, unless it is changed within `isolated()`. `KUBECONFIG` names
    the cluster from the first use to the end of the session.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        _use(_podproof_started, monkeypatch)
        yield _podproof_started


@pytest.fixture
def podproof_caller(podproof_cluster: Cluster) -> EmulatedPod:
    """Return a new pod `default/caller` with a service account of that name, at the address 127.0.0.1."""
    return podproof_cluster.pod("default/caller", service_account="caller")


def _use(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name a cluster as it does outside of a pod."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
