"""The ASGI side of a drain: requests are recorded, connections closed, WebSockets ended; and a readiness endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from podproof.drain.settings import DrainSettings
from podproof.drain.shared_state import SHARED_STATE, SharedState, is_draining

__all__ = ["ready"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# "Service Restart" in IANA's registry of close codes, and what uvicorn sends: the client is to connect again.
_CLOSE_WEBSOCKET: Message = {"type": "websocket.close", "code": 1012, "reason": "server is shutting down"}


class DrainedApp:
    """`app`, with its requests recorded and its connections closed while the server drains."""

    def __init__(
        self,
        app: App,
        settings: DrainSettings,
        *,
        state: SharedState = SHARED_STATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.settings = settings
        self.state = state
        self.clock = clock
        self._open_websockets: set[Send] = set()
        self._websockets_closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan (ASGI 3)."""
        if self.state.draining and scope["type"] in {"http", "websocket"}:
            user_agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
            # The handshake of a WebSocket is a GET (RFC 6455 section 4.1).
            if self.settings.keeps_open(scope.get("method", "GET"), scope["path"], user_agent.decode("latin-1")):
                self.state.last_request = self.clock()
        if scope["type"] == "websocket":
            await self._run_websocket(scope, receive, send)
        elif scope["type"] == "http" and not scope["http_version"].startswith("2"):
            await self.app(scope, receive, self._closing(send))
        else:
            await self.app(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """Respond with `Connection: close` if the drain has begun by then (RFC 9112 section 9.6)."""

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.state.draining:
                headers = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        return send_closing

    async def _run_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_registering(message: Message) -> None:
            await send(message)
            if message["type"] == "websocket.accept":
                self._open_websockets.add(send)
                if self._websockets_closed:
                    await send(_CLOSE_WEBSOCKET)

        try:
            await self.app(scope, receive, send_registering)
        finally:
            self._open_websockets.discard(send)

    async def close_websockets(self) -> None:
        """Close each open WebSocket, and those accepted later, with code 1012."""
        self._websockets_closed = True
        closing = (send(_CLOSE_WEBSOCKET) for send in self._open_websockets)
        await asyncio.gather(*closing, return_exceptions=True)  # an error means that it is closed already


async def ready(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 (ASGI's signature)
    """Respond to a readiness probe: 200, or 503 while the server drains. An ASGI app, to be mounted at a path."""
    status, body = (503, b"draining\n") if is_draining() else (200, b"ready\n")
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
