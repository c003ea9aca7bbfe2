"""The apps that the drained servers serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from podproof.drain.asgi import Receive, Scope, Send
from podproof.drain.uvicorn import DrainMiddleware


def _seconds(query: str) -> float:
    return float(parse_qs(query).get("seconds", ["0"])[0])


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer after `?seconds=`."""
    time.sleep(_seconds(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after `?seconds=`; echo on WebSockets."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    await asyncio.sleep(_seconds(scope["query_string"].decode()))
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


drained = DrainMiddleware(asgi)
