"""Apps that respond with what a server makes of a request's target: `asgi`, and `wsgi`, which is run by Werkzeug here.

A body is the JSON of what routers read: of the scope, or of the environ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send
from werkzeug.serving import run_simple

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEYS = ("PATH_INFO", "SCRIPT_NAME", "RAW_URI", "REQUEST_URI")


async def asgi(scope: Scope, _: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    raw = scope.get("raw_path")
    seen = {
        "path": scope["path"],
        "root_path": scope.get("root_path", ""),
        "raw_path": None if raw is None else raw.decode("latin-1"),
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = json.dumps({key: environ[key] for key in KEYS if key in environ}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), wsgi, threaded=True)
