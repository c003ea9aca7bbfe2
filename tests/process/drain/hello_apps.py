"""The apps that the drained servers serve: each responds with "hello"."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from podproof.drain.asgi import Receive, Scope, Send
from podproof.drain.uvicorn import DrainMiddleware

# The app writes this to the server's log once a request that waits is in it.
IN_FLIGHT = "a request is in flight"
POLL = 0.02  # seconds
# Each process of a server writes this when it has loaded the app.
LOADED = "the app is loaded"
if __name__ == "hello_apps":  # in a server, not in a test
    print(LOADED, file=sys.stderr, flush=True)


def _file_to_wait_for(query: str) -> Path | None:
    paths = parse_qs(query).get("wait_for")
    if paths is None:
        return None
    print(IN_FLIGHT, file=sys.stderr, flush=True)
    return Path(paths[0])


def hello_wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Respond once the file of `?wait_for=` exists, or at once."""
    path = _file_to_wait_for(environ["QUERY_STRING"])
    while path and not path.exists():
        time.sleep(POLL)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


async def hello_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond once the file of `?wait_for=` exists, or at once; echo on WebSockets."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    path = _file_to_wait_for(scope["query_string"].decode())
    while path and not path.exists():  # noqa: ASYNC110 (a file has no event)
        await asyncio.sleep(POLL)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


drained_asgi = DrainMiddleware(hello_asgi)
