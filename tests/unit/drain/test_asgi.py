"""An ASGI app in a drain, on a state and a clock that the tests own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podproof.drain.asgi import App, DrainedApp, Message, Receive, Scope, Send
from podproof.drain.settings import DrainSettings
from podproof.drain.shared_state import SharedState

SETTINGS = DrainSettings(ignored_paths=("/healthz",))
NOW = 50.0


@pytest.fixture
def state() -> SharedState:
    return SharedState()


async def receive() -> Message:
    raise NotImplementedError


def http_scope(
    path: str = "/", user_agent: bytes | None = b"curl/8", version: str = "1.1", method: str = "GET"
) -> Scope:
    headers = [(b"host", b"bob")] + ([(b"user-agent", user_agent)] if user_agent is not None else [])
    return {"type": "http", "method": method, "path": path, "headers": headers, "http_version": version}


async def hello_app(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"Connection", b"keep-alive"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def sent_messages(state: SharedState, scope: Scope, app: App = hello_app) -> list[Any]:
    """Return what the server is sent."""
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(DrainedApp(app, SETTINGS, state=state, clock=lambda: NOW)(scope, receive, send))
    return sent


def test_before_a_drain_requests_are_neither_recorded_nor_changed(state: SharedState) -> None:
    start, _ = sent_messages(state, http_scope())
    assert start["headers"] == [(b"Connection", b"keep-alive"), (b"content-length", b"0")]
    assert state.last_request == 0.0


def test_in_a_drain_a_request_is_recorded_and_its_connection_closed(state: SharedState) -> None:
    state.drain_started = 1.0
    start, body = sent_messages(state, http_scope())
    assert start["headers"] == [(b"content-length", b"0"), (b"connection", b"close")]
    assert body == {"type": "http.response.body", "body": b""}
    assert state.last_request == NOW


def test_a_response_that_starts_after_sigterm_closes_the_connection_of_a_request_from_before(
    state: SharedState,
) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        state.drain_started = 1.0
        await hello_app(scope, receive, send)

    assert (b"connection", b"close") in sent_messages(state, http_scope(), slow)[0]["headers"]


def test_http_2_has_no_connection_header(state: SharedState) -> None:
    state.drain_started = 1.0
    start, _ = sent_messages(state, http_scope(version="2"))
    assert (b"connection", b"close") not in start["headers"]
    assert state.last_request == NOW


@pytest.mark.parametrize("scope", [http_scope(user_agent=b"kube-probe/1.33"), http_scope("/healthz")])
def test_health_checks_are_not_recorded(state: SharedState, scope: Scope) -> None:
    state.drain_started = 1.0
    sent_messages(state, scope)
    assert state.last_request == 0.0


def test_metrics_pushed_by_prometheus_are_recorded(state: SharedState) -> None:
    state.drain_started = 1.0
    sent_messages(state, http_scope(user_agent=b"Prometheus/3.5.0", method="POST"))
    assert state.last_request == NOW


def test_a_request_without_a_user_agent_is_recorded(state: SharedState) -> None:
    state.drain_started = 1.0
    sent_messages(state, http_scope(user_agent=None))
    assert state.last_request == NOW


def test_the_lifespan_is_not_recorded(state: SharedState) -> None:
    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})

    state.drain_started = 1.0
    assert sent_messages(state, {"type": "lifespan"}, lifespan) == [{"type": "lifespan.startup.complete"}]
    assert state.last_request == 0.0


ACCEPT = {"type": "websocket.accept"}
HELLO = {"type": "websocket.send", "text": "hello"}
CLOSE = {"type": "websocket.close", "code": 1012, "reason": "server is shutting down"}


class WebSocketApp:
    """An app with WebSockets, and what the server is sent on each, by its path."""

    def __init__(self, state: SharedState) -> None:
        self.drained = DrainedApp(self.greet, SETTINGS, state=state, clock=lambda: NOW)
        self.accepting = asyncio.Event()
        self.ending = asyncio.Event()
        self.sent: dict[str, list[Any]] = {}
        self.running: list[asyncio.Task[None]] = []

    async def greet(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await self.accepting.wait()
        await send(ACCEPT)
        await send(HELLO)
        await self.ending.wait()

    async def open(self, path: str) -> None:
        async def send(message: Message) -> None:
            if path == "/gone" and message["type"] == "websocket.close":
                raise OSError("the peer is gone")
            self.sent.setdefault(path, []).append(message)

        scope = {"type": "websocket", "path": path, "headers": []}
        self.running.append(asyncio.create_task(self.drained(scope, receive, send)))
        await asyncio.sleep(0)

    async def close(self) -> None:
        self.ending.set()
        await asyncio.gather(*self.running)


def test_open_websockets_are_closed_with_service_restart(state: SharedState) -> None:
    async def run() -> dict[str, list[Any]]:
        app = WebSocketApp(state)
        for path in ("/gone", "/a", "/slow"):
            await app.open(path)
        await app.drained.close_websockets()
        app.accepting.set()
        await app.close()
        return app.sent

    assert asyncio.run(run()) == {
        "/gone": [ACCEPT, HELLO],
        "/a": [ACCEPT, HELLO, CLOSE],
        "/slow": [ACCEPT, CLOSE, HELLO],
    }


def test_a_websocket_that_has_ended_is_not_closed_again(state: SharedState) -> None:
    async def run() -> dict[str, list[Any]]:
        app = WebSocketApp(state)
        await app.open("/a")
        await app.close()
        await app.drained.close_websockets()
        return app.sent

    assert asyncio.run(run()) == {"/a": [ACCEPT, HELLO]}


def test_a_websocket_opened_in_a_drain_is_recorded(state: SharedState) -> None:
    async def run() -> None:
        app = WebSocketApp(state)
        state.drain_started = 1.0
        await app.open("/a")
        await app.close()

    asyncio.run(run())
    assert state.last_request == NOW
