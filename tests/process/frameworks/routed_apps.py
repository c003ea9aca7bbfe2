"""One app in each framework, with the same handlers, each of which notes that it has run.

`/admin`, `/admin/below`, `/public`, `/public/page` and `/healthz` have a handler each, where it matters `/tree/` too;
every other path leads to a handler that notes the path which the framework has seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import bottle
import falcon.asgi
import fastapi
import flask
import litestar
import quart
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import clear_url_caches, re_path
from django.utils.functional import empty
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware

HANDLERS = {
    "admin": "/admin",
    "below": "/admin/below",
    "bare": "/public",
    "page": "/public/page",
    "health": "/healthz",
}
RAN: list[str] = []
"""The handlers that have run: their names, or the path that the last one has seen."""


def note(name: str, path: str = "") -> str:
    RAN.append(name if name != "other" else f"/{path.lstrip('/')}")
    return "ok"


Wrap = Callable[[Any], Any]


@dataclass(frozen=True)
class RoutedApp:
    """`build` returns a framework's app with the middleware that it is given; `around` has to hold meanwhile."""

    name: str
    build: Callable[[Wrap], Any]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def starlette_app(wrap: Wrap) -> Any:
    def endpoint(name: str) -> Callable[[Request], Any]:
        async def handle(request: Request) -> PlainTextResponse:
            return PlainTextResponse(note(name, request.path_params.get("path", "")))

        return handle

    routes = [Route(path, endpoint(name)) for name, path in HANDLERS.items()]
    return Starlette(
        routes=[*routes, Route("/{path:path}", endpoint("other"))], middleware=[Middleware(_Wrapped, wrap=wrap)]
    )


class _Wrapped:
    """Starlette's `add_middleware` makes this, which has the framework's own stack below it."""

    def __new__(cls, app: Any, wrap: Wrap) -> Any:
        return wrap(app)


def fastapi_app(root: str, *, inside: bool) -> Callable[[Wrap], Any]:
    def build(wrap: Wrap) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # FastAPI's root_path is deprecated, and in use
            app = fastapi.FastAPI(openapi_url=None, root_path=root)
        for name, path in HANDLERS.items():
            app.get(path)(_fastapi_endpoint(name))
        app.get("/{path:path}")(_fastapi_endpoint("other"))
        if not inside:
            return wrap(app)
        app.add_middleware(_Wrapped, wrap=wrap)
        return app

    return build


def _fastapi_endpoint(name: str) -> Callable[..., Any]:
    async def handle(request: fastapi.Request) -> str:
        return note(name, request.path_params.get("path", ""))

    return handle


def litestar_app(*, mount: bool = False) -> Callable[[Wrap], Any]:
    def endpoint(name: str, path: str) -> Any:
        async def handle(request: litestar.Request[Any, Any, Any]) -> str:
            return note(name, str(request.path_params.get("path", "")))

        handle.__name__ = name
        return litestar.get(path, opt={"name": name})(handle)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        below = scope["path"] if scope["path"].startswith("/") and scope["path"] != "/" else ""
        note("other" if below else "admin", f"/admin{below}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    handlers = [endpoint(name, path) for name, path in HANDLERS.items() if not (mount and name in {"admin", "below"})]
    if mount:
        handlers.append(litestar.asgi("/admin", is_mount=True, copy_scope=True)(mounted))
    handlers.append(endpoint("other", "/{path:path}"))
    return lambda wrap: wrap(litestar.Litestar(handlers, openapi_config=None, logging_config=None))


def quart_app(*, strict: bool) -> Callable[[Wrap], Any]:
    def build(wrap: Wrap) -> Any:
        app = quart.Quart("routed", static_folder=None)
        app.url_map.strict_slashes = strict
        _add_werkzeug_routes(app, _async_view, tree=not strict)
        app.asgi_app = wrap(app.asgi_app)  # type: ignore[method-assign]
        return app

    return build


def flask_app(*, strict: bool) -> Callable[[Wrap], Any]:
    def build(wrap: Wrap) -> Any:
        app = flask.Flask("routed", static_folder=None)
        _add_werkzeug_routes(app, _view, tree=not strict, **({} if strict else {"strict_slashes": False}))
        app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]
        return app

    return build


def _add_werkzeug_routes(app: Any, view: Callable[[str], Any], *, tree: bool, **options: Any) -> None:
    handlers = HANDLERS | ({"tree": "/tree/"} if tree else {})
    for name, path in {**handlers, "other": "/<path:path>"}.items():
        app.add_url_rule(path, name, view(name), **options)


def _view(name: str) -> Any:
    return lambda path="": note(name, path)


def _async_view(name: str) -> Any:
    async def view(path: str = "") -> str:
        return note(name, path)

    return view


def django_app(handler: type[ASGIHandler | WSGIHandler], *, force: str | None) -> RoutedApp:
    is_async = issubclass(handler, ASGIHandler)
    return RoutedApp(
        f"Django, {'async' if is_async else 'sync'}, FORCE_SCRIPT_NAME={force}",
        lambda wrap: wrap(handler()),
        lambda: _django_settings(
            ROOT_URLCONF=AsyncDjangoURLs if is_async else DjangoURLs,
            MIDDLEWARE=[],
            FORCE_SCRIPT_NAME=force,
            ALLOWED_HOSTS=["*"],
        ),
    )


@contextmanager
def _django_settings(**values: Any) -> Iterator[None]:
    """Give Django settings for a while; other tests of this process configure it for themselves."""
    before = settings._wrapped
    settings._wrapped = empty
    settings.configure(**values)
    clear_url_caches()
    try:
        yield
    finally:
        settings._wrapped = before
        clear_url_caches()
        if before is empty:  # what is cached is of these settings
            vars(connections).pop("settings", None)
            connections._settings = None
            with suppress(AttributeError):
                del connections["default"]


def _django_view(name: str) -> Any:
    def view(_: HttpRequest, path: str = "") -> HttpResponse:
        return HttpResponse(note(name, path))

    return view


def _async_django_view(name: str) -> Any:
    async def view(_: HttpRequest, path: str = "") -> HttpResponse:
        return HttpResponse(note(name, path))

    return view


def _django_patterns(view: Callable[[str], Any]) -> list[Any]:
    patterns = [re_path(rf"^{path[1:]}$", view(name)) for name, path in HANDLERS.items()]
    return [*patterns, re_path(r"^(?P<path>.*)$", view("other"))]


class DjangoURLs:
    urlpatterns = _django_patterns(_django_view)


class AsyncDjangoURLs:
    urlpatterns = _django_patterns(_async_django_view)


class _FalconResource:
    def __init__(self, name: str) -> None:
        self._name = name

    def on_get(self, req: falcon.Request, _: falcon.Response, **__: str) -> None:
        note(self._name, req.path)


class _FalconAsyncResource(_FalconResource):
    async def on_get(  # type: ignore[override]
        self, req: falcon.asgi.Request, _: falcon.asgi.Response, **__: str
    ) -> None:
        note(self._name, req.path)


def falcon_app(make: Callable[[], Any], resource: type[_FalconResource], *, strip: bool) -> Callable[[Wrap], Any]:
    def build(wrap: Wrap) -> Any:
        app = make()
        app.req_options.strip_url_path_trailing_slash = strip
        for name, path in HANDLERS.items():
            app.add_route(path, resource(name))
        app.add_sink(resource("other").on_get, "/")
        return wrap(app)

    return build


def bottle_app(wrap: Wrap) -> Any:
    app = bottle.Bottle()
    for name, path in HANDLERS.items():
        app.get(path)(_view(name))
    app.get("/<path:path>")(_view("other"))
    return wrap(app)


ASGI = (
    RoutedApp("Starlette", starlette_app),
    RoutedApp("FastAPI", fastapi_app("", inside=True)),
    RoutedApp("FastAPI, root_path, wrapped from outside", fastapi_app("/api", inside=False)),
    RoutedApp("FastAPI, root_path, add_middleware", fastapi_app("/api", inside=True)),
    RoutedApp("Litestar", litestar_app()),
    RoutedApp("Litestar, mount", litestar_app(mount=True)),
    RoutedApp("Quart", quart_app(strict=True)),
    RoutedApp("Quart, strict_slashes=False", quart_app(strict=False)),
    django_app(ASGIHandler, force=None),
    django_app(ASGIHandler, force="/api"),
    RoutedApp("Falcon", falcon_app(falcon.asgi.App, _FalconAsyncResource, strip=False)),
    RoutedApp("Falcon, strip", falcon_app(falcon.asgi.App, _FalconAsyncResource, strip=True)),
)
WSGI = (
    RoutedApp("Flask", flask_app(strict=True)),
    RoutedApp("Flask, strict_slashes=False", flask_app(strict=False)),
    django_app(WSGIHandler, force=None),
    django_app(WSGIHandler, force="/api"),
    RoutedApp("Falcon", falcon_app(falcon.App, _FalconResource, strip=False)),
    RoutedApp("Falcon, strip", falcon_app(falcon.App, _FalconResource, strip=True)),
    RoutedApp("Bottle", bottle_app),
)


def asgi_middleware(**options: Any) -> Wrap:
    return lambda app: ASGIMiddleware(app, **options)


def wsgi_middleware(**options: Any) -> Wrap:
    return lambda app: WSGIMiddleware(app, **options)
