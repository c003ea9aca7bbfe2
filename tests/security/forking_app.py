"""Apps that report which process has responded.

With a token in the environment variable PRELOADED_TOKEN they serve a request with it at import, before a server forks.
"""

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

PRELOADED_TOKEN = "PRELOADED_TOKEN"
PRELOADED_ADDRESS = "127.9.9.9"
"""The address of the caller with that token."""


def report() -> dict[str, Any]:
    caller = current_caller()
    return {"caller": caller and str(caller.pod), "pid": os.getpid()}


def asgi_app() -> asgi.PodAuthMiddleware:
    async def respond(_: Request) -> JSONResponse:
        return JSONResponse(report())

    app = asgi.PodAuthMiddleware(Starlette(routes=[Route("/{path:path}", respond)]), exempt=["/healthz"])
    if PRELOADED_TOKEN in os.environ:
        headers = {"Authorization": f"Bearer {os.environ[PRELOADED_TOKEN]}"}
        assert TestClient(app, client=(PRELOADED_ADDRESS, 4711)).get("/", headers=headers).status_code == 200
    return app


def wsgi_app() -> wsgi.PodAuthMiddleware:
    def respond(environ: Any, start_response: Any) -> Any:
        return Response(json.dumps(report()))(environ, start_response)

    app = wsgi.PodAuthMiddleware(respond, exempt=["/healthz"])
    if PRELOADED_TOKEN in os.environ:
        headers = {"Authorization": f"Bearer {os.environ[PRELOADED_TOKEN]}"}
        assert (
            Client(app).get("/", headers=headers, environ_overrides={"REMOTE_ADDR": PRELOADED_ADDRESS}).status_code
            == 200
        )
    return app
