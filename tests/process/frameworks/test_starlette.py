from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocket

from podproof.starlette import PodAuthMiddleware, caller
from tests.process.frameworks.framework_clients import ALICE, asgi_client
from tests.support.fake_api import AuthenticatorFactory


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
