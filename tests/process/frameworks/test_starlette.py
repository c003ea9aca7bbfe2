from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthenticationError, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from podproof import current_caller
from podproof.starlette import PodAuthBackend, PodAuthMiddleware, caller, on_error
from tests.process.frameworks.framework_clients import ALICE, AUTHORIZATION, asgi_client
from tests.support.fake_api import PEER, AuthenticatorFactory


async def whoami(request: Request) -> PlainTextResponse:
    assert caller(request) is request.user
    return PlainTextResponse(f"{caller(request).service_account} in {caller(request).pod}")


async def ws(websocket: WebSocket) -> None:
    text = f"{caller(websocket).service_account} in {caller(websocket).pod}"
    await websocket.accept()
    await websocket.send_text(text)


@pytest.fixture
def app() -> Starlette:
    return Starlette(routes=[Route("/", whoami), WebSocketRoute("/ws", ws)])


def test_an_endpoint_gets_its_caller(app: Starlette, make_authenticator: AuthenticatorFactory) -> None:
    app.add_middleware(PodAuthMiddleware, authenticator=make_authenticator())
    client = asgi_client(app)
    assert client.get("/").text == ALICE
    with client.websocket_connect("/ws") as connection:
        assert connection.receive_text() == ALICE


def test_an_anonymous_request_to_an_endpoint_with_a_caller_is_denied(
    app: Starlette, make_authenticator: AuthenticatorFactory
) -> None:
    app.add_middleware(PodAuthMiddleware, authenticator=make_authenticator(optional=True))
    client = asgi_client(app, anonymous=True)
    response = client.get("/")
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    with pytest.raises(WebSocketDenialResponse) as raised, client.websocket_connect("/ws"):
        raise AssertionError
    assert raised.value.status_code == 401


def test_a_request_that_did_not_pass_through_the_middleware_is_an_error(app: Starlette) -> None:
    assert asgi_client(app).get("/").status_code == 500


def app_with_backend(backend: PodAuthBackend, **handlers: Any) -> Starlette:
    async def whoami(request: Request) -> JSONResponse:
        assert not request.user.is_authenticated or caller(request) is request.user
        assert "authorization" not in request.headers
        return JSONResponse([request.user.display_name, *request.auth.scopes, current_caller()])

    @requires("serviceaccount:batch/*")
    async def for_batch(request: Request) -> PlainTextResponse:
        raise AssertionError

    authentication = Middleware(AuthenticationMiddleware, backend=backend, **handlers)
    routes = [Route("/", whoami), Route("/batch", for_batch), WebSocketRoute("/ws", ws)]
    return Starlette(routes=routes, middleware=[authentication])


def test_starlette_s_own_middleware_has_the_caller_from_the_backend(make_authenticator: AuthenticatorFactory) -> None:
    client = asgi_client(app_with_backend(PodAuthBackend(authenticator=make_authenticator()), on_error=on_error))
    assert client.get("/").json() == [
        *("default/alice", "authenticated", "namespace:default", "serviceaccount:default/alice"),
        None,  # current_caller(): the backend does not see where a request ends
    ]
    assert client.get("/batch").status_code == 403
    with client.websocket_connect("/ws") as connection:
        assert connection.receive_text() == ALICE


def test_a_request_that_the_backend_denies_has_the_middleware_s_response(
    make_authenticator: AuthenticatorFactory,
) -> None:
    backend = PodAuthBackend(authenticator=make_authenticator())
    client = asgi_client(app_with_backend(backend, on_error=on_error), anonymous=True)
    response = client.get("/")
    assert (response.status_code, response.json()["title"]) == (401, "Unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer realm="bob"'
    assert response.headers["content-type"] == "application/problem+json"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
        raise AssertionError
    assert asgi_client(app_with_backend(backend), anonymous=True).get("/").text == "A bearer token is needed."


def test_the_error_of_another_backend_is_not_podproof_s(make_authenticator: AuthenticatorFactory) -> None:
    with pytest.raises(AuthenticationError, match="another"):
        on_error(HTTPConnection({"type": "http"}), AuthenticationError("another"))


def test_an_optional_caller_is_starlette_s_unauthenticated_user(make_authenticator: AuthenticatorFactory) -> None:
    backend = PodAuthBackend(authenticator=make_authenticator(optional=True))
    app = app_with_backend(backend, on_error=on_error)
    assert asgi_client(app, anonymous=True).get("/").json() == ["", None]
    assert asgi_client(app, anonymous=True).get("/", headers={"Authorization": "Bearer x"}).status_code == 401


def test_headers_that_cannot_be_changed_are_replaced(make_authenticator: AuthenticatorFactory) -> None:
    header = (b"authorization", AUTHORIZATION["Authorization"].encode())
    scope = {"type": "http", "method": "GET", "path": "/", "client": (PEER, 1), "headers": (header, (b"host", b"bob"))}
    connection = HTTPConnection(scope)
    assert anyio.run(PodAuthBackend(authenticator=make_authenticator()).authenticate, connection) is not None
    assert [*connection.headers] == ["host"]


def test_the_backend_logs_each_decision_without_the_status_of_the_response(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with_backend(PodAuthBackend(authenticator=make_authenticator()), on_error=on_error)
    with caplog.at_level("INFO", "podproof.audit"):
        asgi_client(app).get("/")
        asgi_client(app, anonymous=True).get("/")
    records = [vars(record) for record in caplog.records if record.name == "podproof.audit"]
    assert [(record["decision"], record["status"]) for record in records] == [("allowed", None), ("denied", 401)]
