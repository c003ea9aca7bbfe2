"""`as_pod(..., force=True)`: each door without a check, a cluster or an audience of the client's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import grpc
import grpc.aio
import httpx
import httpx2
import pytest
from django.test import AsyncClient, override_settings
from django.test import Client as DjangoClient
from fastapi import Depends, FastAPI, WebSocket
from flask import Blueprint, Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import podproof.asgi
import podproof.fastapi
import podproof.flask
import podproof.grpc
import podproof.grpc.aio
import podproof.mcp
import podproof.starlette
from podproof import Pod, PodIdentity, Rule, ServiceAccount, current_caller, require
from podproof.testing import Cluster, as_pod
from tests.process.frameworks import django_project
from tests.support.grpc_servers import handlers_of
from tests.support.mcp_servers import sdk_app


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def whoami() -> str:
    return str(podproof.flask.caller.service_account)


def flask_middleware() -> Any:
    app = Flask(__name__)
    app.wsgi_app = podproof.flask.PodAuthMiddleware(app.wsgi_app, audience="bob")  # type: ignore[method-assign]
    app.add_url_rule("/", view_func=whoami)
    return app.test_client()


def flask_blueprint() -> Any:
    app, blueprint = Flask(__name__), Blueprint("bob", __name__)
    podproof.flask.PodAuth(audience="bob").init_app(blueprint)
    blueprint.add_url_rule("/", view_func=whoami)
    app.register_blueprint(blueprint)
    return app.test_client()


def fastapi_app(**given: Any) -> FastAPI:
    app = FastAPI(**given)

    @app.get("/")
    async def root(caller: podproof.fastapi.Caller) -> str:
        return str(caller.service_account)

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.user.service_account))
        await websocket.close()

    return app


def fastapi_middleware() -> Any:
    app = fastapi_app()
    app.add_middleware(podproof.fastapi.PodAuthMiddleware, audience="bob", rules=[Rule("/nowhere", allow=["x/y"])])
    return TestClient(app)


def fastapi_dependency() -> Any:
    return TestClient(fastapi_app(dependencies=[Depends(podproof.fastapi.PodAuth(audience="bob"))]))


def starlette_backend() -> Any:
    async def root(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.user.service_account))

    backend = podproof.starlette.PodAuthBackend(audience="bob")
    guard = Middleware(AuthenticationMiddleware, backend=backend, on_error=podproof.starlette.on_error)
    return TestClient(Starlette(routes=[Route("/", root)], middleware=[guard]))


def wsgi_transport() -> Any:
    return httpx.Client(transport=httpx.WSGITransport(flask_middleware().application), base_url="http://bob")


CLIENTS: dict[str, Callable[[], Any]] = {
    "flask middleware": flask_middleware,
    "flask blueprint": flask_blueprint,
    "fastapi middleware": fastapi_middleware,
    "fastapi dependency": fastapi_dependency,
    "starlette backend": starlette_backend,
    "httpx": wsgi_transport,
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_each_door_allows_the_pod_and_denies_all_others(kind: str) -> None:
    client, other = CLIENTS[kind](), CLIENTS[kind]()
    assert as_pod(client, "default/alice", force=True) is client
    assert client.get("/").text.strip('"') == "default/alice"
    assert client.get("/", headers={"Authorization": "Bearer x"}).status_code == 401
    assert other.get("/").status_code == 401


def test_a_websocket_is_the_pods() -> None:
    for make in (fastapi_middleware, fastapi_dependency):
        with as_pod(make(), "default/alice", force=True).websocket_connect("/ws") as websocket:
            assert websocket.receive_text() == "default/alice"


@contextmanager
def project(tmp_path_factory: pytest.TempPathFactory, **settings: Any) -> Iterator[None]:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(PODPROOF={"audience": "bob"}, **settings):
        yield


def test_django_s_middleware_allows_the_pod(tmp_path_factory: pytest.TempPathFactory) -> None:
    urls, middleware = "tests.process.frameworks.test_django_middleware", ["podproof.django.PodAuthMiddleware"]
    with project(tmp_path_factory, ROOT_URLCONF=urls, MIDDLEWARE=middleware):
        alice = b"system:serviceaccount:default:alice"
        assert as_pod(DjangoClient(), "default/alice", force=True).get("/users").content == alice
        response = anyio.run(as_pod(AsyncClient(), "default/alice", force=True).get, "/users/async")
        assert response.content == alice


def test_rest_framework_s_class_allows_the_pod(tmp_path_factory: pytest.TempPathFactory) -> None:
    with project(tmp_path_factory, ROOT_URLCONF="tests.process.frameworks.rest_views", MIDDLEWARE=[]):
        client = as_pod(DjangoClient(), "batch/job", force=True)
        assert client.get("/batch").json() == ["system:serviceaccount:batch:job", "batch/job", None]
        assert as_pod(DjangoClient(), "default/alice", force=True).get("/batch").status_code == 403


def test_an_mcp_server_allows_the_pod() -> None:
    app = podproof.mcp.PodAuthMiddleware(sdk_app(stateless=True, json_response=True), audience="bob")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
    accept = {"Accept": "application/json, text/event-stream"}
    with as_pod(TestClient(app, base_url="http://127.0.0.1:8000"), "default/alice", force=True) as client:
        response = client.post("/mcp", json=call, headers=accept)
        assert response.json()["result"]["content"][0]["text"] == "default/alice"


class WhoAmI:
    def unary_unary(self, _: bytes, __: object) -> bytes:
        return str(current_caller() and current_caller().service_account).encode()  # type: ignore[union-attr]


@pytest.mark.parametrize("header", ["Authorization", "X-Pod-Authorization"])
def test_grpc_allows_the_pod(header: str) -> None:
    server = grpc.server(
        ThreadPoolExecutor(1),
        handlers=[handlers_of(WhoAmI())],
        interceptors=[podproof.grpc.PodAuthInterceptor(audience="bob", header=header)],
    )
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()

    async def call_by_aio() -> bytes:
        async with grpc.aio.insecure_channel(target) as channel:
            assert as_pod(channel, "default/carol", header=header, force=True) is channel
            echo: Any = channel.unary_unary("/echo.Echo/unary_unary")
            response: bytes = await echo(b"")
            return response

    with grpc.insecure_channel(target) as channel:
        allowed: Any = as_pod(channel, "default/alice", header=header, force=True).unary_unary("/echo.Echo/unary_unary")
        denied: Any = channel.unary_unary("/echo.Echo/unary_unary")
        assert allowed(b"", timeout=10) == b"default/alice"
        assert anyio.run(call_by_aio) == b"default/carol"
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            denied(b"", timeout=10)
    server.stop(None).wait()


def test_an_identity_is_what_the_app_sees() -> None:
    alice = PodIdentity(
        ServiceAccount("default", "alice", "1"), Pod("default", "alice-7", "2", labels={"team": "x"}), "carol", 4e9
    )
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["user"])
        await PlainTextResponse("")(scope, receive, send)

    wrapped = podproof.asgi.PodAuthMiddleware(app, audience="bob")
    as_pod(TestClient(wrapped), alice, force=True).get("/")
    as_pod(TestClient(wrapped), "default/alice", force=True).get("/")
    as_pod(TestClient(wrapped), "default/alice", force=True).get("/")
    first, second, third = seen
    assert first is alice or first == alice
    assert (second.audience, second.pod.uid) == ("bob", third.pod.uid)  # type: ignore[attr-defined]
    assert second.expires_at > time.time()  # type: ignore[attr-defined]


def test_a_pod_of_a_cluster_is_what_it_is_there(podproof_cluster: Cluster) -> None:
    pod = podproof_cluster.pod("default/alice-7", service_account="alice", addresses=["10.0.0.7"])
    pod.update(phase="Failed")
    client = as_pod(flask_middleware(), pod, force=True)
    assert client.get("/").text == "default/alice"


def test_an_identity_that_is_in_no_cluster_needs_force() -> None:
    alice = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice", "2"), "bob", 4e9)
    with pytest.raises(ValueError, match="force=True"):
        as_pod(flask_middleware(), alice)


def test_require_still_denies_in_the_app() -> None:
    app = Flask(__name__)
    app.wsgi_app = podproof.flask.PodAuthMiddleware(app.wsgi_app, audience="bob")  # type: ignore[method-assign]
    app.add_url_rule("/", view_func=require("batch/*")(whoami))
    assert as_pod(app.test_client(), "default/alice", force=True).get("/").status_code == 403
    assert as_pod(app.test_client(), "batch/job", force=True).get("/").status_code == 200


def test_an_httpx2_client_is_the_pods() -> None:
    async def get() -> str:
        transport = httpx2.ASGITransport(fastapi_middleware().app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://bob") as client:
            return (await as_pod(client, "default/alice", force=True).get("/")).text

    assert anyio.run(get) == '"default/alice"'


def test_a_channel_calls_from_where_the_pod_is(podproof_cluster: Cluster) -> None:
    elsewhere = podproof_cluster.pod("default/elsewhere", addresses=["10.0.0.7"])
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(ValueError, match="a channel calls from"):
            as_pod(channel, elsewhere, audience="bob")
        assert as_pod(channel, "default/alice", audience="bob") is not channel
        assert podproof_cluster.find_pod("default/alice").addresses == ("127.0.0.1",)  # type: ignore[union-attr]
