"""Bobs who say which process has answered. Each has known one caller since before any fork, where KNOWN has a token."""

from __future__ import annotations

import json
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.test import Client
from werkzeug.wrappers import Response

from podproof import asgi, current_caller, wsgi

KNOWN = "TOKEN_OF_WHO_IS_KNOWN"
ADDRESS = "127.9.9.9"
"""Where the one calls from who is known."""


def said() -> dict[str, Any]:
    caller = current_caller()
    return {"caller": caller and str(caller.pod), "pid": os.getpid()}


def asgi_app() -> asgi.PodAuthMiddleware:
    async def tell(_: Request) -> JSONResponse:
        return JSONResponse(said())

    bob = asgi.PodAuthMiddleware(Starlette(routes=[Route("/{path:path}", tell)]), exempt=["/healthz"])
    if KNOWN in os.environ:
        headers = {"Authorization": f"Bearer {os.environ[KNOWN]}"}
        assert TestClient(bob, client=(ADDRESS, 4711)).get("/", headers=headers).status_code == 200
    return bob


def wsgi_app() -> wsgi.PodAuthMiddleware:
    def tell(environ: Any, start_response: Any) -> Any:
        return Response(json.dumps(said()))(environ, start_response)

    bob = wsgi.PodAuthMiddleware(tell, exempt=["/healthz"])
    if KNOWN in os.environ:
        headers = {"Authorization": f"Bearer {os.environ[KNOWN]}"}
        assert Client(bob).get("/", headers=headers, environ_overrides={"REMOTE_ADDR": ADDRESS}).status_code == 200
    return bob
