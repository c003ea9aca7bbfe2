"""Apps that stream timestamps: many events, one event on a stream that stays open, and WebSocket messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from podproof import asgi, wsgi

PAUSE = 0.05
"""Seconds between two timestamps."""

COUNT = 200
"""Timestamps, which take longer than the token of any test lives."""


def stamp() -> str:
    return f"[{time.time()}]"


async def events(_: Request) -> StreamingResponse:
    async def stamps() -> Any:
        for _ in range(COUNT):
            yield stamp()
            await anyio.sleep(PAUSE)

    return StreamingResponse(stamps())


class Idle:
    """Sends one timestamp, and then keeps the response open until the client disconnects."""

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": stamp().encode(), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass


async def websocket(websocket: WebSocket) -> None:
    await websocket.accept()
    for _ in range(COUNT):
        await websocket.send_text(stamp())
        await anyio.sleep(PAUSE)


async def healthz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


asgi_app = Starlette(
    routes=[
        Route("/events", events),
        Route("/idle", Idle()),
        Route("/healthz", healthz),
        WebSocketRoute("/ws", websocket),
    ]
)
asgi_app.add_middleware(asgi.PodAuthMiddleware, exempt=["/healthz"])


def wsgi_events(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/healthz":
        yield b"ok"
        return
    for _ in range(COUNT):
        yield stamp().encode()
        time.sleep(PAUSE)


wsgi_app = wsgi.PodAuthMiddleware(wsgi_events, exempt=["/healthz"])
