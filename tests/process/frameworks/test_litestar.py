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
from podproof.litestar import Caller, CallerPlugin, PodAuthMiddleware
from tests.process.frameworks.requests_sent import KNOWN, asgi
from tests.support.fake_api import AuthenticatorFactory


@get("/")
async def whoami(caller: Caller) -> str:
    return f"{caller.service_account} in {caller.pod}"


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
    handlers = [whoami, for_all, for_batch, headers, ws]
    return Litestar(handlers, plugins=[CallerPlugin()], logging_config=None, **given)


def test_a_handler_is_given_its_caller(make_authenticator: AuthenticatorFactory) -> None:
    bob = asgi(PodAuthMiddleware(app(), authenticator=make_authenticator()))
    assert bob.get("/").text == KNOWN
    with bob.websocket_connect("/ws") as connection:
        assert connection.receive_text() == KNOWN


def test_a_handler_that_asks_for_the_caller_needs_one(make_authenticator: AuthenticatorFactory) -> None:
    bob = asgi(PodAuthMiddleware(app(), authenticator=make_authenticator(optional=True)), known=False)
    answer = bob.get("/")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert bob.get("/open").text == "open"
    with pytest.raises((WebSocketDenialResponse, WebSocketDisconnect)), bob.websocket_connect("/ws"):
        raise AssertionError


def test_a_refusal_in_a_handler_is_the_middleware_s_own(make_authenticator: AuthenticatorFactory) -> None:
    answer = asgi(PodAuthMiddleware(app(), authenticator=make_authenticator())).get("/batch")
    assert (answer.status_code, answer.json()["detail"]) == (403, "The caller is not allowed here.")


def test_the_token_is_gone_before_litestar_reads_the_headers(make_authenticator: AuthenticatorFactory) -> None:
    bob = asgi(PodAuthMiddleware(app(cors_config=CORSConfig(allow_origins=["*"])), authenticator=make_authenticator()))
    assert "authorization" not in bob.get("/headers", headers={"Origin": "http://carol"}).json()


THEIRS = Components(security_schemes={"theirs": SecurityScheme(type="mutualTLS")})


@pytest.mark.parametrize("components", [THEIRS, [THEIRS]])
def test_the_scheme_is_in_the_openapi_document(components: Components | list[Components]) -> None:
    theirs = OpenAPIConfig(title="Bob", version="1", components=components, security=[{"theirs": []}])
    document = app(openapi_config=theirs).openapi_schema.to_schema()
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {"theirs": "mutualTLS", "podproof": "http"}
    assert (schemes["podproof"]["scheme"], schemes["podproof"]["bearerFormat"]) == ("bearer", "JWT")
    assert document["security"] == [{"theirs": []}, {"podproof": []}]
    assert "parameters" not in document["paths"]["/"]["get"]
    assert theirs.security == [{"theirs": []}]


def test_an_app_may_have_no_openapi_document(make_authenticator: AuthenticatorFactory) -> None:
    bob = asgi(PodAuthMiddleware(app(openapi_config=None), authenticator=make_authenticator()))
    assert bob.get("/").text == KNOWN
    assert bob.get("/schema").status_code == 404


def test_without_the_middleware_nothing_is_believed() -> None:
    assert asgi(app()).get("/").status_code == 500
