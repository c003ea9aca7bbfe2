from __future__ import annotations

from typing import Any

import pytest
from litestar import Litestar, Request, WebSocket, get, websocket
from litestar.config.cors import CORSConfig
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from podproof._request.require import require
from podproof.identity import PodIdentity
from podproof.litestar import Caller, CallerPlugin, PodAuthMiddleware
from tests.process.frameworks.framework_clients import ALICE, asgi_client
from tests.support.fake_api import AuthenticatorFactory


@get("/")
async def whoami(caller: Caller) -> str:
    return f"{caller.service_account} in {caller.pod}"


@get("/identity")
async def identity(caller: Caller) -> PodIdentity:
    return caller


@get("/open")
async def for_all() -> str:
    return "open"


@get("/batch")
async def for_batch() -> None:
    require("batch/*").check()


@get("/headers")
async def headers(request: Request[Any, Any, Any]) -> list[str]:
    return list(request.headers)


@websocket("/ws")
async def ws(socket: WebSocket[Any, Any, Any], caller: Caller) -> None:
    await socket.accept()
    await socket.send_text(f"{caller.service_account} in {caller.pod}")


def app(**given: Any) -> Litestar:
    handlers = [whoami, identity, for_all, for_batch, headers, ws]
    return Litestar(handlers, plugins=[CallerPlugin()], logging_config=None, **given)


def test_a_handler_gets_its_caller(make_authenticator: AuthenticatorFactory) -> None:
    client = asgi_client(PodAuthMiddleware(app(), authenticator=make_authenticator()))
    assert client.get("/").text == ALICE
    with client.websocket_connect("/ws") as connection:
        assert connection.receive_text() == ALICE


def test_a_handler_may_return_the_identity(make_authenticator: AuthenticatorFactory) -> None:
    response = asgi_client(PodAuthMiddleware(app(), authenticator=make_authenticator())).get("/identity")
    assert response.json()["extra"]["authentication.kubernetes.io/pod-uid"] == ["pod-uid"]


def test_an_anonymous_request_to_a_handler_with_a_caller_is_denied(make_authenticator: AuthenticatorFactory) -> None:
    client = asgi_client(PodAuthMiddleware(app(), authenticator=make_authenticator(optional=True)), anonymous=True)
    response = client.get("/")
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    assert response.headers["Content-Type"] == "application/problem+json"
    assert client.get("/open").text == "open"
    with pytest.raises((WebSocketDenialResponse, WebSocketDisconnect)), client.websocket_connect("/ws"):
        raise AssertionError


def test_a_handler_that_denies_gets_the_response_of_the_middleware(make_authenticator: AuthenticatorFactory) -> None:
    response = asgi_client(PodAuthMiddleware(app(), authenticator=make_authenticator())).get("/batch")
    assert (response.status_code, response.json()["detail"]) == (403, "The caller is not allowed here.")


def test_the_token_is_removed_before_litestar_reads_the_headers(make_authenticator: AuthenticatorFactory) -> None:
    client = asgi_client(
        PodAuthMiddleware(app(cors_config=CORSConfig(allow_origins=["*"])), authenticator=make_authenticator())
    )
    assert "authorization" not in client.get("/headers", headers={"Origin": "http://carol"}).json()


OWN_COMPONENTS = Components(security_schemes={"mtls": SecurityScheme(type="mutualTLS")})


@pytest.mark.parametrize("components", [OWN_COMPONENTS, [OWN_COMPONENTS]])
def test_the_security_scheme_is_in_the_openapi_document(components: Components | list[Components]) -> None:
    own = OpenAPIConfig(title="Bob", version="1", components=components, security=[{"mtls": []}])
    document = app(openapi_config=own).openapi_schema.to_schema()
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {"mtls": "mutualTLS", "podproof": "http"}
    assert (schemes["podproof"]["scheme"], schemes["podproof"]["bearerFormat"]) == ("bearer", "JWT")
    assert document["security"] == [{"mtls": []}, {"podproof": []}]
    assert "parameters" not in document["paths"]["/"]["get"]
    assert own.security == [{"mtls": []}]


def test_another_header_is_an_api_key_in_the_openapi_document() -> None:
    document = Litestar([], plugins=[CallerPlugin(header="X-Pod-Authorization")]).openapi_schema.to_schema()
    assert document["components"]["securitySchemes"]["podproof"] == {
        "type": "apiKey",
        "in": "header",
        "name": "X-Pod-Authorization",
        "description": "`Bearer`, a blank and the caller's service-account token.",
    }


def test_an_app_may_have_no_openapi_document(make_authenticator: AuthenticatorFactory) -> None:
    client = asgi_client(PodAuthMiddleware(app(openapi_config=None), authenticator=make_authenticator()))
    assert client.get("/").text == ALICE
    assert client.get("/schema").status_code == 404


def test_a_request_that_did_not_pass_through_the_middleware_is_an_error() -> None:
    assert asgi_client(app()).get("/").status_code == 500
