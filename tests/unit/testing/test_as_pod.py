"""`as_pod`: test clients as pods, with the whole pipeline in the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from django.test import AsyncClient, override_settings
from django.test import Client as DjangoClient
from fastapi import Depends, FastAPI
from flask import Flask
from starlette.testclient import TestClient
from werkzeug.test import Client as WerkzeugClient

import podproof.fastapi
import podproof.flask
from podproof.testing import Cluster, as_pod
from podproof.testing._app_options import AppOptions, find_options
from podproof.testing._as_pod import cluster_around_us
from tests.process.frameworks import django_project

pytestmark = pytest.mark.usefixtures("podproof_cluster")


def whoami() -> str:
    return str(podproof.flask.caller.service_account)


def flask_app(audience: str = "bob", **options: Any) -> Flask:
    app = Flask(__name__)
    app.wsgi_app = podproof.flask.PodAuthMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, audience=audience, **options
    )
    app.add_url_rule("/", view_func=whoami)
    return app


def fastapi_app(**middleware: Any) -> FastAPI:
    dependencies = [] if middleware else [Depends(podproof.fastapi.PodAuth(audience="bob"))]
    app = FastAPI(dependencies=dependencies)
    if middleware:
        app.add_middleware(podproof.fastapi.PodAuthMiddleware, **middleware)

    @app.get("/")
    async def root(caller: podproof.fastapi.Caller) -> str:
        return str(caller.service_account)

    return app


CLIENTS: dict[str, Callable[[], Any]] = {
    "flask": lambda: flask_app().test_client(),
    "werkzeug": lambda: WerkzeugClient(flask_app()),
    "starlette": lambda: TestClient(fastapi_app(audience=["bob"])),
    "fastapi dependency": lambda: TestClient(fastapi_app()),
    "httpx": lambda: httpx.Client(transport=httpx.WSGITransport(flask_app()), base_url="http://bob"),
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_calls_as_the_pod(kind: str) -> None:
    client = CLIENTS[kind]()
    assert client.get("/").status_code == 401
    assert as_pod(client, "default/alice") is client
    assert client.get("/").text.strip('"') == "default/alice"
    assert as_pod(CLIENTS[kind](), "batch/job").get("/").text.strip('"') == "batch/job"
    assert client.get("/", headers={"Authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize(
    "client",
    [
        lambda: flask_app(header="X-Pod-Authorization").test_client(),
        lambda: WerkzeugClient(flask_app(header="X-Pod-Authorization")),
        lambda: TestClient(fastapi_app(audience="bob", header="X-Pod-Authorization")),
        lambda: httpx.Client(
            transport=httpx.WSGITransport(flask_app(header="X-Pod-Authorization")), base_url="http://bob"
        ),
    ],
)
def test_the_token_is_in_the_header_of_the_app(client: Callable[[], Any]) -> None:
    for force in (False, True):
        called = as_pod(client(), "default/alice", force=force)
        assert called.get("/", headers={"Authorization": "Basic person"}).text.strip('"') == "default/alice"
        assert called.get("/", headers={"X-Pod-Authorization": "Bearer x"}).status_code == 401


def test_a_header_can_be_named() -> None:
    client = as_pod(flask_app().test_client(), "default/alice", header="X-Pod-Authorization")
    assert client.get("/").status_code == 401


def test_an_asynchronous_client_calls_as_the_pod() -> None:
    async def get() -> str:
        transport = httpx.ASGITransport(fastapi_app())
        async with as_pod(httpx.AsyncClient(transport=transport, base_url="http://bob"), "default/alice") as client:
            return (await client.get("/")).text

    assert anyio.run(get) == '"default/alice"'


def test_the_clients_of_django_call_as_the_pod(tmp_path_factory: pytest.TempPathFactory) -> None:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(
        ROOT_URLCONF="tests.process.frameworks.test_django_middleware",
        MIDDLEWARE=["podproof.django.PodAuthMiddleware"],
        PODPROOF={"audience": "bob"},
    ):
        assert as_pod(DjangoClient(), "default/alice").get("/users").content == b"system:serviceaccount:default:alice"
        response = anyio.run(as_pod(AsyncClient(), "default/alice").get, "/users/async")
        assert response.content == b"system:serviceaccount:default:alice"
    with override_settings(
        ROOT_URLCONF="tests.process.frameworks.test_django_middleware",
        MIDDLEWARE=["podproof.django.PodAuthMiddleware"],
        PODPROOF={"audience": "bob", "header": "X-Pod-Authorization"},
    ):
        assert as_pod(DjangoClient(), "default/alice").get("/users").content == b"system:serviceaccount:default:alice"
        response = anyio.run(as_pod(AsyncClient(), "default/alice").get, "/users/async")
        assert response.content == b"system:serviceaccount:default:alice"


def test_a_pod_of_the_cluster_calls_as_it_is_there(podproof_cluster: Cluster) -> None:
    mallory = podproof_cluster.pod("default/mallory", addresses=["10.0.0.9"], phase="Failed")
    assert as_pod(flask_app().test_client(), mallory).get("/").status_code == 401
    assert as_pod(flask_app().test_client(), "default/mallory").get("/").status_code == 401
    podproof_cluster.fail(500)
    assert as_pod(flask_app().test_client(), "default/alice").get("/").status_code == 503


def test_another_audience_can_be_named() -> None:
    assert as_pod(flask_app().test_client(), "default/alice", audience="carol").get("/").status_code == 401


def test_the_audience_is_the_environment_s_where_the_app_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(PODPROOF={}), pytest.raises(ValueError, match="audience"):
        as_pod(Flask(__name__).test_client(), "default/alice")
    monkeypatch.setenv("PODPROOF_AUDIENCE", "carol, bob")
    monkeypatch.setenv("PODPROOF_HEADER", " X-Pod-Token ")
    with override_settings(PODPROOF={}):
        assert find_options(Flask(__name__)) == AppOptions(["carol"], ["X-Pod-Token"])
    app = FastAPI()
    app.add_middleware(podproof.fastapi.PodAuthMiddleware, header="X-Pod-Authorization")
    assert find_options(app) == AppOptions(["carol"], ["X-Pod-Authorization"])


def test_each_audience_of_an_app_is_found_behind_what_wraps_it() -> None:
    first, second = flask_app("bob"), flask_app("carol")

    def dispatch(environ: Any, start_response: Any) -> Any:
        return (first if environ["PATH_INFO"] == "/" else second)(environ, start_response)

    wrapped = [partial(dispatch, None), {"app": second.wsgi_app}]
    assert sorted(find_options(wrapped).audiences) == ["bob", "carol"]


def test_other_clients_are_not_known() -> None:
    with pytest.raises(TypeError, match="object is no test client"):
        as_pod(object(), "default/alice")
    with pytest.raises(TypeError, match="over the network"):
        as_pod(httpx.Client(), "default/alice", audience="bob")


def test_without_the_fixture_a_cluster_is_started_and_named_in_the_environment(
    podproof_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/elsewhere/config")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert cluster_around_us() is podproof_cluster
    assert os.environ["KUBECONFIG"] == str(podproof_cluster.kubeconfig)
    assert "KUBERNETES_SERVICE_HOST" not in os.environ
    assert as_pod(flask_app().test_client(), "default/alice").get("/").text == "default/alice"
