"""One small app of each framework that docs/frameworks.md names: at /whoami it responds with the caller's account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import falcon.asgi
from django.conf import empty, settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse as FastAPIText
from fastmcp import FastMCP
from flask import Flask
from litestar import Litestar, MediaType
from litestar import get as litestar_get
from mcp.server.mcpserver import MCPServer
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import podproof.fastapi
import podproof.flask
import podproof.litestar
import podproof.quart
from podproof import current_caller
from podproof.falcon import CallerMiddleware
from podproof.identity import PodIdentity


def flask_app() -> Flask:
    app = Flask("documented")
    app.add_url_rule("/whoami", view_func=lambda: account(podproof.flask.caller))
    return app


def quart_app() -> Quart:
    app = Quart("documented")

    @app.get("/whoami")
    async def whoami() -> str:
        return account(podproof.quart.caller)

    return app


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.get("/whoami", response_class=FastAPIText)
    def whoami(caller: podproof.fastapi.Caller) -> str:
        return account(caller)

    return app


def starlette_app() -> Starlette:
    def whoami(request: Request) -> PlainTextResponse:
        return PlainTextResponse(account(request.user))

    return Starlette(routes=[Route("/whoami", whoami)])


def litestar_app() -> Litestar:
    @litestar_get("/whoami", media_type=MediaType.TEXT)
    async def whoami(caller: podproof.litestar.Caller) -> str:
        return account(caller)

    return Litestar([whoami], plugins=[podproof.litestar.CallerPlugin()])


class FalconWhoami:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = account(req.context.caller)


class FalconAsyncWhoami:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.text = account(req.context.caller)


def falcon_app() -> falcon.App[Any, Any]:
    app = falcon.App(middleware=[CallerMiddleware()])
    app.add_route("/whoami", FalconWhoami())
    return app


def falcon_asgi_app() -> falcon.asgi.App[Any, Any]:
    app = falcon.asgi.App(middleware=[CallerMiddleware()])
    app.add_route("/whoami", FalconAsyncWhoami())
    return app


def wsgi_app(_: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [account(current_caller()).encode()]


def mcp_app(app: Starlette) -> Starlette:
    app.add_route("/whoami", lambda _: PlainTextResponse(account(current_caller())))
    return app


async def asgi_app(
    _: Mapping[str, Any], __: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": account(current_caller()).encode()})


def django_whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(account(request.caller))


urlpatterns = [path("whoami", django_whoami)]


@contextmanager
def django_project() -> Iterator[None]:
    """Make this module Django's project, which there is one of in a process, for a while."""
    before = settings.__dict__["_wrapped"]
    settings._wrapped = empty
    settings.configure(
        ALLOWED_HOSTS=["*"], MIDDLEWARE=["podproof.django.CallerMiddleware"], ROOT_URLCONF=__name__, LOGGING_CONFIG=None
    )
    yield
    settings._wrapped = before


def account(caller: PodIdentity | None) -> str:
    assert caller is not None
    return str(caller.service_account)


APPS: Mapping[str, Callable[[], Any]] = {
    "Starlette": starlette_app,
    "FastAPI": fastapi_app,
    "Flask": flask_app,
    "Quart": quart_app,
    "Litestar": litestar_app,
    "Falcon, WSGI": falcon_app,
    "Falcon, ASGI": falcon_asgi_app,
    "Bottle, Pyramid, any WSGI app": lambda: wsgi_app,
    "MCP: the `mcp` SDK": lambda: mcp_app(MCPServer("bob").streamable_http_app()),
    "MCP: FastMCP": lambda: mcp_app(FastMCP("bob").http_app()),
    "any ASGI app": lambda: asgi_app,
}
"""By the name of the framework in the documentation; Django has its app in its settings, see `django_project`."""
