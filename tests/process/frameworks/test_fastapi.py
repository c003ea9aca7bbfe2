from __future__ import annotations

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import WebSocketDenialResponse

from podproof.fastapi import Caller, PodAuthMiddleware
from tests.process.frameworks.requests_sent import KNOWN, asgi
from tests.support.fake_api import AuthenticatorFactory


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def whoami(caller: Caller) -> str:
        return f"{caller.service_account} in {caller.pod}"

    @app.get("/open")
    async def for_all() -> str:
        return "open"

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, caller: Caller) -> None:
        await websocket.accept()
        await websocket.send_text(f"{caller.service_account} in {caller.pod}")

    return app


def test_an_endpoint_is_given_its_caller(app: FastAPI, make_authenticator: AuthenticatorFactory) -> None:
    app.add_middleware(PodAuthMiddleware, authenticator=make_authenticator())
    bob = asgi(app)
    assert bob.get("/").json() == KNOWN
    with bob.websocket_connect("/ws") as connection:
        assert connection.receive_text() == KNOWN


def test_an_endpoint_that_asks_for_the_caller_needs_one(app: FastAPI, make_authenticator: AuthenticatorFactory) -> None:
    app.add_middleware(PodAuthMiddleware, authenticator=make_authenticator(optional=True))
    bob = asgi(app, known=False)
    answer = bob.get("/")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    assert bob.get("/open").json() == "open"
    with pytest.raises(WebSocketDenialResponse) as refused, bob.websocket_connect("/ws"):
        raise AssertionError
    assert refused.value.status_code == 401


def test_the_scheme_is_in_the_openapi_document_where_a_caller_is_needed(app: FastAPI) -> None:
    document = app.openapi()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    assert document["paths"]["/"]["get"]["security"] == [{"podproof": []}]
    assert "security" not in document["paths"]["/open"]["get"]
    assert "parameters" not in document["paths"]["/"]["get"]


def test_without_the_middleware_nothing_is_believed(app: FastAPI) -> None:
    assert asgi(app).get("/").status_code == 500
