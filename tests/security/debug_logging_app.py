"""Apps that print every log record of every library, and each request as the app receives it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from podproof import asgi, wsgi
from podproof._request.context import IDENTITY
from tests.support.leak_detector import capture_all_records, format_record

_capture = capture_all_records(lambda record: print(format_record(record), file=sys.stderr))
_capture.__enter__()
logging.captureWarnings(capture=True)


def _show(request: dict[str, Any]) -> bytes:
    print(repr(request), file=sys.stderr)
    return str(request[IDENTITY] and request[IDENTITY].pod).encode()


def _wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [_show(environ)]


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        body = _show(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


wsgi_app = wsgi.PodAuthMiddleware(_wsgi_app, exempt=["/healthz"])
asgi_app = asgi.PodAuthMiddleware(_asgi_app, exempt=["/healthz"])
