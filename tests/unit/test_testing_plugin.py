from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flask import Flask, request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from podproof import asgi, wsgi

if TYPE_CHECKING:
    from starlette.requests import Request

    from podproof.testing.cluster import Cluster
    from podproof.testing.objects import Pod


def test_flask_knows_its_caller(caller: Pod) -> None:
    app = Flask(__name__)
    app.wsgi_app = wsgi.PodAuthMiddleware(app.wsgi_app, audience="bob")  # type: ignore[method-assign]
    app.add_url_rule("/", view_func=lambda: str(request.environ["podproof.identity"].service_account))
    assert app.test_client().get("/", headers=caller.headers("bob")).text == "default/caller"


def test_starlette_knows_its_caller(caller: Pod) -> None:
    def whoami(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.display_name)

    app = Starlette(routes=[Route("/", whoami)])
    app.add_middleware(asgi.PodAuthMiddleware, audience="bob")
    client = TestClient(app, client=caller.peer)
    assert client.get("/", headers=caller.headers("bob")).text == "default/caller"
    assert client.get("/", headers=caller.headers("carol")).status_code == 401


def test_the_environment_names_the_emulated_cluster_and_no_other(cluster: Cluster) -> None:
    assert os.environ["KUBECONFIG"] == str(cluster.kubeconfig)
    assert "KUBERNETES_SERVICE_HOST" not in os.environ
    assert "KUBERNETES_SERVICE_PORT" not in os.environ


def test_a_second_caller_is_at_another_address(cluster: Cluster, caller: Pod) -> None:
    alice = cluster.pod("default/alice", addresses=("127.0.0.2",))
    assert (alice.peer[0], caller.peer[0]) == ("127.0.0.2", "127.0.0.1")
