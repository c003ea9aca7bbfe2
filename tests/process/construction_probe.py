"""Construct a middleware, use it for the first time, and print which threads and connections each step has started.

`python -m tests.process.construction_probe HOW`, where HOW is the first use: `wsgi-request`, `asgi-request`,
`asgi-lifespan`, or `none`. The environment names the kubeconfig. The API server of the kubeconfig has to be the one
that this process listens as, on the port PROBE_PORT: it accepts connections and never responds.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from typing import Any

from starlette.testclient import TestClient
from werkzeug.test import Client
from werkzeug.wrappers import Response

from podproof import asgi, wsgi
from tests.support.fake_api import token


def count_connections(listener: socket.socket, *, wait: bool) -> int:
    """Return how many connections were opened to the listener; with `wait`, wait for the first one."""
    count = 0
    listener.settimeout(30 if wait else 0)
    try:
        while True:
            listener.accept()
            count += 1
            listener.settimeout(0)
    except (BlockingIOError, TimeoutError):
        return count


def use(how: str) -> None:
    """Construct the middleware, print what was started, and use it."""
    before = set(threading.enumerate())
    listener = socket.create_server(("127.0.0.1", int(os.environ["PROBE_PORT"])))
    app: Any
    if how == "wsgi-request":
        app = wsgi.PodAuthMiddleware(Response("ok"), audience="bob", timeout=0.5)
    else:
        app = asgi.PodAuthMiddleware(_asgi_app, audience="bob", timeout=0.5)
    threads = sorted(thread.name for thread in set(threading.enumerate()) - before)
    constructed = {"threads": threads, "connections": count_connections(listener, wait=False)}
    now = time.time()
    headers = {"Authorization": f"Bearer {token(iat=now, nbf=now, exp=now + 3600)}"}
    match how:
        case "wsgi-request":
            Client(app).get("/", headers=headers, environ_overrides={"REMOTE_ADDR": "127.0.0.2"})
        case "asgi-request":
            TestClient(app, client=("127.0.0.2", 4711)).get("/", headers=headers)
        case "asgi-lifespan":
            asyncio.run(_start_up(app))
    connections = 0 if how == "none" else count_connections(listener, wait=True)
    print(json.dumps({"constructed": constructed, "used": {"connections": connections}}), flush=True)
    os._exit(0)  # whatever still waits for the API server


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})


async def _start_up(app: Any) -> None:
    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(_: Any) -> None:
        return

    await app({"type": "lifespan"}, receive, send)


if __name__ == "__main__":
    use(sys.argv[1])
