"""The ASGI app that takes part in a drain."""

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
def stamps() -> SharedState:
    return SharedState()


async def receive() -> Message:
    raise NotImplementedError


def http(path: str = "/", agent: bytes | None = b"curl/8", version: str = "1.1") -> Scope:
    headers = [(b"host", b"bob")] + ([(b"user-agent", agent)] if agent is not None else [])
    return {"type": "http", "path": path, "headers": headers, "http_version": version}


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"Connection", b"keep-alive"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def answer(stamps: SharedState, scope: Scope, app: App = answering) -> list[Any]:
    """Return what reaches the server."""
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(DrainedApp(app, SETTINGS, stamps=stamps, clock=lambda: NOW)(scope, receive, send))
    return sent


def test_before_a_drain_nothing_is_stamped_and_nothing_changed(stamps: SharedState) -> None:
    start, _ = answer(stamps, http())
    assert start["headers"] == [(b"Connection", b"keep-alive"), (b"content-length", b"0")]
    assert stamps.arrived == 0.0


def test_while_draining_a_request_is_stamped_and_its_connection_closed(stamps: SharedState) -> None:
    stamps.since = 1.0
    start, body = answer(stamps, http())
    assert start["headers"] == [(b"content-length", b"0"), (b"connection", b"close")]
    assert body == {"type": "http.response.body", "body": b""}
    assert stamps.arrived == NOW


def test_a_response_that_starts_after_sigterm_closes_a_connection_from_before(stamps: SharedState) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        stamps.since = 1.0
        await answering(scope, receive, send)

    assert (b"connection", b"close") in answer(stamps, http(), slow)[0]["headers"]


def test_http_2_has_no_connection_header(stamps: SharedState) -> None:
    stamps.since = 1.0
    start, _ = answer(stamps, http(version="2"))
    assert (b"connection", b"close") not in start["headers"]
    assert stamps.arrived == NOW


@pytest.mark.parametrize("scope", [http(agent=b"kube-probe/1.33"), http("/healthz")])
def test_probes_do_not_reset_the_gap(stamps: SharedState, scope: Scope) -> None:
    stamps.since = 1.0
    answer(stamps, scope)
    assert stamps.arrived == 0.0


def test_a_request_without_a_user_agent_counts(stamps: SharedState) -> None:
    stamps.since = 1.0
    answer(stamps, http(agent=None))
    assert stamps.arrived == NOW


def test_the_lifespan_is_no_request(stamps: SharedState) -> None:
    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})

    stamps.since = 1.0
    assert answer(stamps, {"type": "lifespan"}, lifespan) == [{"type": "lifespan.startup.complete"}]
    assert stamps.arrived == 0.0


ACCEPT = {"type": "websocket.accept"}
HELLO = {"type": "websocket.send", "text": "hello"}
LEAVE = {"type": "websocket.close", "code": 1012, "reason": "server is shutting down"}


class Chat:
    """An app with WebSockets, and what the server is sent on each of three."""

    def __init__(self, stamps: SharedState) -> None:
        self.app = DrainedApp(self.chat, SETTINGS, stamps=stamps, clock=lambda: NOW)
        self.accepting = asyncio.Event()
        self.ending = asyncio.Event()
        self.sent: dict[str, list[Any]] = {}
        self.running: list[asyncio.Task[None]] = []

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        self.running.append(asyncio.create_task(self.app(scope, receive, send)))
        await asyncio.sleep(0)

    async def close(self) -> None:
        self.ending.set()
        await asyncio.gather(*self.running)


def test_open_websockets_are_told_to_come_back_elsewhere(stamps: SharedState) -> None:
    async def scene() -> dict[str, list[Any]]:
        chat = Chat(stamps)
        for path in ("/gone", "/a", "/slow"):
            await chat.open(path)
        await chat.app.leave_websockets()
        chat.accepting.set()
        await chat.close()
        return chat.sent

    assert asyncio.run(scene()) == {
        "/gone": [ACCEPT, HELLO],
        "/a": [ACCEPT, HELLO, LEAVE],
        "/slow": [ACCEPT, LEAVE, HELLO],
    }


def test_a_websocket_that_has_ended_is_told_nothing(stamps: SharedState) -> None:
    async def scene() -> dict[str, list[Any]]:
        chat = Chat(stamps)
        await chat.open("/a")
        await chat.close()
        await chat.app.leave_websockets()
        return chat.sent

    assert asyncio.run(scene()) == {"/a": [ACCEPT, HELLO]}


def test_a_websocket_opened_while_draining_counts_as_a_request(stamps: SharedState) -> None:
    async def scene() -> None:
        chat = Chat(stamps)
        stamps.since = 1.0
        await chat.open("/a")
        await chat.close()

    asyncio.run(scene())
    assert stamps.arrived == NOW
