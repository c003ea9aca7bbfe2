from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import falcon
import pytest
from fastapi import Depends, FastAPI, WebSocket
from flask import Blueprint, Flask
from quart import Quart
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from podproof import PodIdentity, current_caller
from podproof._request.context import current_request
from podproof._request.require import require
from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.errors import NoCredential, NotAllowed
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware
from tests.support.fake_api import PEER, AuthenticatorFactory, token
from tests.support.middleware_client import MiddlewareClient
from tests.unit.test_asgi import call, headers_of, scope_of, status_of

AUTHORIZATION = {"Authorization": f"Bearer {token()}"}


def is_our_denial(status: int, kind: str | None, body: bytes) -> bool:
    problem = {key: value for key, value in json.loads(body).items() if key != "request_id"}
    return (status, kind) == (403, "application/problem+json") and problem == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "The caller is not allowed here.",
    }


def test_check_returns_the_required_caller(make_client: Callable[..., MiddlewareClient]) -> None:
    got: list[object] = []
    allowed = require("batch/*", "default/alice")
    assert make_client(lambda: got.append(allowed.check()))().status == 200
    assert [str(identity) for identity in got] == [str(got[0])]
    assert isinstance(got[0], PodIdentity)


def test_any_other_caller_gets_the_middlewares_own_denial(
    make_client: Callable[..., MiddlewareClient], caplog: pytest.LogCaptureFixture
) -> None:
    response = make_client(require("batch/*").check)("/reports")
    assert is_our_denial(response.status, response.headers["Content-Type"], response.body)
    assert response.headers["Www-Authenticate"] == 'Bearer realm="bob", error="insufficient_scope"'
    (record,) = caplog.records
    assert "not-allowed: default/alice is not among batch/* [service_account=default/alice" in record.getMessage()
    assert vars(record)["pod_uid"] == "pod-uid"
    assert json.loads(response.body)["request_id"] == vars(record)["request_id"]


def test_an_anonymous_caller_is_401_with_a_challenge(make_client: Callable[..., MiddlewareClient]) -> None:
    response = make_client(require("*/*").check, optional=True)(headers={"Authorization": ""})
    assert (response.status, response.headers["Www-Authenticate"]) == (401, 'Bearer realm="bob"')


@pytest.mark.parametrize("patterns", [(), ("alice",)])
def test_an_invalid_pattern_is_a_value_error(patterns: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"pattern|form"):
        require(*patterns)


def test_outside_a_request_there_is_no_caller() -> None:
    with pytest.raises(NoCredential):
        require("*/*").check()
    with pytest.raises(RuntimeError, match="did not pass through PodAuthMiddleware"):
        require("*/*")(lambda: None)()


def flask_app(make_authenticator: AuthenticatorFactory) -> Flask:
    app = Flask(__name__)
    batch = Blueprint("batch", __name__, url_prefix="/batch")

    @app.get("/alice")
    @require("default/alice")
    def for_alice() -> str:
        return str(current_caller())

    @app.get("/jobs/<int:number>")
    @require("batch/*")
    def for_jobs(number: int) -> str:
        raise AssertionError(number)

    @app.get("/async")
    @require("batch/*")
    async def for_async() -> str:
        raise AssertionError

    @app.get("/async/alice")
    @require("default/alice")
    async def for_async_alice() -> str:
        return "alice"

    batch.before_request(require("batch/*")(lambda: None))

    @batch.get("/")
    def for_batch() -> str:
        raise AssertionError

    @app.errorhandler(Exception)
    def render_error_page(error: Exception) -> tuple[str, int]:
        return "a page", 500

    app.register_blueprint(batch)
    app.wsgi_app = WSGIMiddleware(app.wsgi_app, authenticator=make_authenticator())  # type: ignore[method-assign]
    return app


@pytest.mark.parametrize("path", ["/alice", "/async/alice"])
def test_a_flask_view_is_open_to_the_required_caller(make_authenticator: AuthenticatorFactory, path: str) -> None:
    client = flask_app(make_authenticator).test_client()
    assert client.get(path, headers=AUTHORIZATION, environ_overrides={"REMOTE_ADDR": PEER}).status_code == 200


@pytest.mark.parametrize("path", ["/jobs/1", "/async", "/batch/"])
def test_a_flask_view_is_denied_to_any_other_caller(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    client = flask_app(make_authenticator).test_client()
    response = client.get(path, headers=AUTHORIZATION, environ_overrides={"REMOTE_ADDR": PEER})
    assert is_our_denial(response.status_code, response.mimetype, response.data)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert vars(caplog.records[0])["path"] == path
    response.close()
    assert current_request.get() is None


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_quart_view_is_open_to_the_required_caller_only(make_authenticator: AuthenticatorFactory) -> None:
    app = Quart(__name__)

    @app.get("/alice")
    @require("default/alice")
    async def for_alice() -> str:
        return "alice"

    @app.get("/batch")
    @require("batch/*")
    async def for_batch() -> str:
        raise AssertionError

    protected_app = ASGIMiddleware(app, authenticator=make_authenticator())
    facts: dict[str, Any] = {"http_version": "1.1", "scheme": "http", "extensions": {}}
    assert status_of(await call(protected_app, scope_of(path="/alice", **facts), [{"type": "http.request"}])) == 200
    sent = await call(protected_app, scope_of(path="/batch", **facts), [{"type": "http.request"}])
    assert is_our_denial(status_of(sent), headers_of(sent)["content-type"], sent[1]["body"])


def fastapi_app(make_authenticator: AuthenticatorFactory) -> TestClient:
    app = FastAPI()

    @app.get("/alice")
    async def for_alice(caller: Annotated[PodIdentity, Depends(require("default/alice").dependency)]) -> str:
        return str(caller.pod)

    @app.get("/batch", dependencies=[Depends(require("batch/*").dependency)])
    def for_batch() -> str:
        raise AssertionError

    @app.websocket("/ws")
    async def for_websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        require("batch/*").check()

    @app.websocket("/ws/batch", dependencies=[Depends(require("batch/*").dependency)])
    async def for_batch_websocket(websocket: WebSocket) -> None:
        raise AssertionError

    app.add_middleware(ASGIMiddleware, authenticator=make_authenticator())
    return TestClient(app, client=(PEER, 4711), headers=AUTHORIZATION)


def test_a_fastapi_endpoint_gets_the_required_caller(make_authenticator: AuthenticatorFactory) -> None:
    response = fastapi_app(make_authenticator).get("/alice")
    assert (response.status_code, response.json()) == (200, "default/alice-pod")


def test_a_fastapi_endpoint_is_denied_to_any_other_caller(make_authenticator: AuthenticatorFactory) -> None:
    response = fastapi_app(make_authenticator).get("/batch")
    assert is_our_denial(response.status_code, response.headers["Content-Type"], response.content)


def test_a_fastapi_websocket_is_denied_to_any_other_caller(make_authenticator: AuthenticatorFactory) -> None:
    client = fastapi_app(make_authenticator)
    with (
        pytest.raises(WebSocketDenialResponse) as raised,
        client.websocket_connect("/ws/batch"),
    ):
        raise AssertionError
    denied = raised.value
    assert is_our_denial(denied.status_code, denied.headers["Content-Type"], denied.content)
    with client.websocket_connect("/ws") as websocket:
        websocket.send_text("")
        with pytest.raises(WebSocketDisconnect) as ended:
            websocket.receive_text()
    assert (ended.value.code, ended.value.reason) == (1008, "the caller is not allowed here")


@pytest.mark.anyio
async def test_a_denial_after_the_response_has_started_is_an_error(make_authenticator: AuthenticatorFactory) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise NotAllowed("too late")

    with pytest.raises(NotAllowed, match="too late"):
        await call(ASGIMiddleware(app, authenticator=make_authenticator()), scope_of())


@pytest.mark.anyio
@pytest.mark.parametrize("sent_by_app", [["websocket.close"], ["websocket.accept", "websocket.close"]])
async def test_nothing_more_is_sent_to_a_websocket_that_is_closed(
    make_authenticator: AuthenticatorFactory, sent_by_app: list[str]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in sent_by_app:
            await send({"type": kind})
        raise NotAllowed("too late")

    sent = await call(ASGIMiddleware(app, authenticator=make_authenticator()), scope_of("websocket"))
    assert [message["type"] for message in sent] == sent_by_app


@pytest.mark.parametrize("loaded", [True, False])
def test_in_an_app_that_leaves_no_trace_a_denial_is_an_error_with_or_without_falcon(
    make_client: Callable[..., MiddlewareClient], monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    if not loaded:
        monkeypatch.setitem(sys.modules, falcon.__name__, None)
        monkeypatch.setitem(sys.modules, "falcon.asgi", None)
    raised: list[Exception] = []

    def view() -> None:
        try:
            require("batch/*").check()
        except NotAllowed as denial:
            raised.append(denial)
            raise

    assert make_client(view)().status == 403
    assert [type(error) is NotAllowed for error in raised] == [not loaded]
