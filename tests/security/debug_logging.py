"""Bobs who print all that they and their libraries have to say, and each request as the app gets it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from podproof import asgi, wsgi
from podproof._request.context import IDENTITY
from tests.support.leak_detector import every_record, text_of

_every_record = every_record(lambda record: print(text_of(record), file=sys.stderr))
_every_record.__enter__()
logging.captureWarnings(capture=True)


def _answer(request: dict[str, Any]) -> bytes:
    print(repr(request), file=sys.stderr)
    return str(request[IDENTITY] and request[IDENTITY].pod).encode()


def _wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [_answer(environ)]


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        body = _answer(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


wsgi_app = wsgi.PodAuthMiddleware(_wsgi_app, exempt=["/healthz"])
asgi_app = asgi.PodAuthMiddleware(_asgi_app, exempt=["/healthz"])
