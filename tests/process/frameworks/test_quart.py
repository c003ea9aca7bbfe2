from __future__ import annotations

import pytest
from quart import Quart, websocket
from starlette.testclient import WebSocketDenialResponse

from podproof.quart import PodAuthMiddleware, caller
from tests.process.frameworks.requests_sent import KNOWN, asgi
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
def test_a_view_knows_its_caller(app: Quart, make_authenticator: AuthenticatorFactory, path: str) -> None:
    assert asgi(PodAuthMiddleware(app, authenticator=make_authenticator())).get(path).text == KNOWN


def test_a_websocket_knows_its_caller(app: Quart, make_authenticator: AuthenticatorFactory) -> None:
    with asgi(PodAuthMiddleware(app, authenticator=make_authenticator())).websocket_connect("/ws") as connection:
        assert connection.receive_text() == KNOWN


def test_a_view_that_asks_for_the_caller_needs_one(app: Quart, make_authenticator: AuthenticatorFactory) -> None:
    bob = asgi(PodAuthMiddleware(app, authenticator=make_authenticator(optional=True)), known=False)
    answer = bob.get("/")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    with pytest.raises(WebSocketDenialResponse) as refused, bob.websocket_connect("/ws"):
        raise AssertionError
    assert refused.value.status_code == 401


def test_without_the_middleware_nothing_is_believed(app: Quart) -> None:
    assert asgi(app).get("/").status_code == 500
