"""An ASGI app that takes part in a drain: it stamps requests, lets connections go, and tells WebSockets to leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from podproof.drain.settings import DrainSettings
from podproof.drain.shared_state import SHARED, SharedState, is_draining

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# "Service Restart" in IANA's registry of close codes, and what uvicorn sends: come back, to another server.
_LEAVE: Message = {"type": "websocket.close", "code": 1012, "reason": "server is shutting down"}


class DrainedApp:
    """`app`, with its requests stamped and its connections closed while the server drains."""

    def __init__(
        self,
        app: App,
        settings: DrainSettings,
        *,
        stamps: SharedState = SHARED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.settings = settings
        self.stamps = stamps
        self.clock = clock
        self._websockets: set[Send] = set()
        self._leaving = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan (ASGI 3)."""
        if self.stamps.draining and scope["type"] in {"http", "websocket"}:
            agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
            if self.settings.counts(scope["path"], agent.decode("latin-1")):
                self.stamps.arrived = self.clock()
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http" and not scope["http_version"].startswith("2"):
            await self.app(scope, receive, self._closing(send))
        else:
            await self.app(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """Answer with `Connection: close` if the drain has begun by then (RFC 9112 section 9.6)."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.stamps.draining:
                kept = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
            await send(message)

        return closing

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def opening(message: Message) -> None:
            await send(message)
            if message["type"] == "websocket.accept":
                self._websockets.add(send)
                if self._leaving:
                    await send(_LEAVE)

        try:
            await self.app(scope, receive, opening)
        finally:
            self._websockets.discard(send)

    async def leave_websockets(self) -> None:
        """Close each open WebSocket, and those still to open, with code 1012. What fails to close has gone already."""
        self._leaving = True
        await asyncio.gather(*(send(_LEAVE) for send in self._websockets), return_exceptions=True)


async def ready(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 (ASGI's signature)
    """Answer a readiness probe: 200, or 503 while the server drains. An ASGI app, to be mounted at a path."""
    status, body = (503, b"draining\n") if is_draining() else (200, b"ready\n")
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
