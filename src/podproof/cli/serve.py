"""`podproof serve`: an app as a server of its own, with probes, metrics, a drain, and its log as JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import uvicorn
from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from podproof.audit import JSONFormatter
from podproof.drain.asgi import ready
from podproof.drain.uvicorn import DrainMiddleware

PROBES = ("/livez", "/readyz", "/metrics")


class ServedApp(Protocol):
    """An ASGI app with a lifespan."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""

    def lifespan(self, app: object, /) -> AbstractAsyncContextManager[None]:
        """Return what begins and ends with the server."""


class Listener(NamedTuple):
    """Where to listen, and with which certificate, None for plain HTTP."""

    host: str
    port: int
    certificate: str | None = None
    key: str | None = None


Takes = Callable[[Scope], bool]
"""Tells by its scope whether a request is the app's at any path, those of probes and metrics too."""


def with_probes(app: ServedApp, takes: Takes = lambda _: False) -> ASGIApp:
    """Return the app with probes and metrics beside it, which drains at SIGTERM. Raises ValueError for its options."""
    metrics = _Endpoint(make_asgi_app())
    routes = [
        _Taken(app, takes),
        Route("/livez", _live),
        Route("/readyz", _Endpoint(ready)),
        Route("/metrics", metrics),
        Route("/metrics/", metrics),
        Mount("/", app),
    ]
    return DrainMiddleware(Starlette(routes=routes, lifespan=app.lifespan), ignored_paths=PROBES)


def serve(app: ServedApp, listener: Listener, takes: Takes = lambda _: False) -> None:
    """Serve an app until SIGTERM. Raises ValueError for an invalid option of the drain."""
    served = with_probes(app, takes)
    log_as_json()
    uvicorn.run(
        served,
        host=listener.host,
        port=listener.port,
        ssl_certfile=listener.certificate,
        ssl_keyfile=listener.key,
        lifespan="on",
        http="h11",  # it keeps the target as it was sent, and drops trailers
        ws="none",
        proxy_headers=False,  # the peer is the socket's, or what trusted_proxies say
        server_header=False,
        access_log=False,  # each decision is in the decision log
        log_config=None,
    )


def log_as_json() -> None:
    """Write all logs from INFO on as JSON to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _Taken(BaseRoute):
    """The requests that an app takes, whatever their path is."""

    def __init__(self, app: ASGIApp, takes: Takes) -> None:
        self._app, self._takes = app, takes

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "http" and self._takes(scope) else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _live(_: Request) -> Response:
    return PlainTextResponse("live\n")


class _Endpoint:
    """An ASGI app as the endpoint of a route: Starlette takes a function for a view."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
