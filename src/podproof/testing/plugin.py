"""The pytest plugin: fixtures that give a test its own emulated cluster.

A Flask app, and a Starlette app, that know who is calling:

```python
def test_flask_knows_its_caller(caller):
    app = Flask(__name__)
    app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience="bob")
    app.add_url_rule("/", view_func=lambda: str(request.environ["podproof.identity"].service_account))
    assert app.test_client().get("/", headers=caller.headers("bob")).text == "default/caller"


def test_starlette_knows_its_caller(caller):
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse(request.user.display_name))])
    app.add_middleware(PodAuthMiddleware, audience="bob")
    client = TestClient(app, client=caller.peer)
    assert client.get("/", headers=caller.headers("bob")).text == "default/caller"
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podproof.testing.cluster import Cluster
    from podproof.testing.objects import Pod


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Give an emulated cluster of this test's own; `KUBECONFIG` names it, as if the app ran outside of a pod."""
    from podproof.testing.cluster import Cluster  # noqa: PLC0415 - this module is loaded in every pytest run

    with Cluster() as started:
        monkeypatch.setenv("KUBECONFIG", str(started.kubeconfig))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
        yield started


@pytest.fixture
def caller(cluster: Cluster) -> Pod:
    """Give a pod `default/caller` with a service account of that name, at the address of test clients, 127.0.0.1."""
    return cluster.pod("default/caller", service_account="caller")
