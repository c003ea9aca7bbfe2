from __future__ import annotations

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import WebSocketDenialResponse

from podproof.fastapi import Caller, PodAuthMiddleware
from podproof.identity import PodIdentity
from tests.process.frameworks.framework_clients import ALICE, asgi_client
from tests.support.fake_api import AuthenticatorFactory


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def whoami(caller: Caller) -> str:
        return f"{caller.service_account} in {caller.pod}"

    @app.get("/identity")
    async def identity(caller: Caller) -> PodIdentity:
        return caller

    @app.get("/open")
    async def for_all() -> str:
        return "open"

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, caller: Caller) -> None:
        await websocket.accept()
        await websocket.send_text(f"{caller.service_account} in {caller.pod}")

    return app


def test_an_endpoint_gets_its_caller(app: FastAPI, make_authenticator: AuthenticatorFactory) -> None:
    app.add_middleware(PodAuthMiddleware, authenticator=make_authenticator())
    client = asgi_client(app)
    assert client.get("/").json() == ALICE
    with client.websocket_connect("/ws") as connection:
        assert connection.receive_text() == ALICE


def test_an_endpoint_may_return_the_identity(app: FastAPI, make_authenticator: AuthenticatorFactory) -> None:
    app.add_middleware(PodAuthMiddleware, authenticator=make_authenticator())
    response = asgi_client(app).get("/identity")
    assert response.status_code == 200
    assert response.json()["service_account"] == {"namespace": "default", "name": "alice", "uid": "account-uid"}
    assert response.json()["extra"]["authentication.kubernetes.io/pod-uid"] == ["pod-uid"]


def test_an_anonymous_request_to_an_endpoint_with_a_caller_is_denied(
    app: FastAPI, make_authenticator: AuthenticatorFactory
) -> None:
    app.add_middleware(PodAuthMiddleware, authenticator=make_authenticator(optional=True))
    client = asgi_client(app, anonymous=True)
    response = client.get("/")
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    assert client.get("/open").json() == "open"
    with pytest.raises(WebSocketDenialResponse) as raised, client.websocket_connect("/ws"):
        raise AssertionError
    assert raised.value.status_code == 401


def test_the_security_scheme_is_in_the_openapi_document_of_endpoints_with_a_caller(app: FastAPI) -> None:
    document = app.openapi()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    assert document["paths"]["/"]["get"]["security"] == [{"podproof": []}]
    assert "security" not in document["paths"]["/open"]["get"]
    assert "parameters" not in document["paths"]["/"]["get"]


def test_a_request_that_did_not_pass_through_the_middleware_is_an_error(app: FastAPI) -> None:
    assert asgi_client(app).get("/").status_code == 500
