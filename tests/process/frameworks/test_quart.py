from __future__ import annotations

import pytest
from quart import Quart, websocket
from starlette.testclient import WebSocketDenialResponse

from podproof.quart import PodAuthMiddleware, caller
from tests.process.frameworks.framework_clients import ALICE, asgi_client
from tests.support.fake_api import AuthenticatorFactory


@pytest.fixture
def app() -> Quart:
    app = Quart(__name__)

    @app.get("/")
    async def whoami() -> str:
        return f"{caller.service_account} in {caller.pod}"

    @app.get("/sync")
    def whoami_in_a_thread() -> str:
        return f"{caller.service_account} in {caller.pod}"

    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.send(f"{caller.service_account} in {caller.pod}")

    return app


@pytest.mark.parametrize("path", ["/", "/sync"])
def test_a_view_gets_its_caller(app: Quart, make_authenticator: AuthenticatorFactory, path: str) -> None:
    assert asgi_client(PodAuthMiddleware(app, authenticator=make_authenticator())).get(path).text == ALICE


def test_a_websocket_gets_its_caller(app: Quart, make_authenticator: AuthenticatorFactory) -> None:
    with asgi_client(PodAuthMiddleware(app, authenticator=make_authenticator())).websocket_connect("/ws") as connection:
        assert connection.receive_text() == ALICE


def test_an_anonymous_request_to_a_view_with_a_caller_is_denied(
    app: Quart, make_authenticator: AuthenticatorFactory
) -> None:
    client = asgi_client(PodAuthMiddleware(app, authenticator=make_authenticator(optional=True)), anonymous=True)
    response = client.get("/")
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    with pytest.raises(WebSocketDenialResponse) as raised, client.websocket_connect("/ws"):
        raise AssertionError
    assert raised.value.status_code == 401


def test_a_request_that_did_not_pass_through_the_middleware_is_an_error(app: Quart) -> None:
    assert asgi_client(app).get("/").status_code == 500
