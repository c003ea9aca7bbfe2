"""Apps without a middleware around them: each door that judges a request inside a framework, on one authenticator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from fastapi import Depends, FastAPI, WebSocket
from flask import Blueprint, Flask, request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import podproof.fastapi
import podproof.flask
from podproof._authentication.authenticator import Authenticator
from podproof._request.context import IDENTITY
from podproof.starlette import PodAuthBackend, on_error
from tests.process.frameworks import django_project

Record = Callable[[Any], None]

WSGI_DOORS = ("flask", "flask blueprint", "django", "rest_framework")
ASGI_DOORS = ("fastapi", "starlette", "django asgi")
WEBSOCKET_DOORS = ("fastapi websocket",)
DOORS = (*WSGI_DOORS, *ASGI_DOORS, *WEBSOCKET_DOORS)


@contextmanager
def in_app_doors(
    authenticator: Authenticator, record: Record, folder: Path
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give the WSGI and the ASGI apps of these doors, which call `record` with each request that is allowed."""
    fastapi = _fastapi(authenticator, record)
    asgi_apps = {"fastapi": fastapi, "fastapi websocket": fastapi, "starlette": _starlette(authenticator, record)}
    wsgi_apps: dict[str, Any] = {
        "flask": _flask(authenticator, record),
        "flask blueprint": _flask_blueprint(authenticator, record),
    }
    django_project.configure(folder)
    from tests.security import django_views  # noqa: PLC0415  REST framework reads the settings when it is imported

    django_views.record = record
    with override_settings(
        ROOT_URLCONF=django_views.__name__, PODPROOF={"authenticator": authenticator}, MIDDLEWARE=[]
    ):
        wsgi_apps["rest_framework"] = _at("/rest", WSGIHandler())
        with override_settings(MIDDLEWARE=["podproof.django.PodAuthMiddleware"]):
            wsgi_apps["django"], asgi_apps["django asgi"] = WSGIHandler(), ASGIHandler()
        yield wsgi_apps, asgi_apps


def _fastapi(authenticator: Authenticator, record: Record) -> FastAPI:
    app, auth = FastAPI(), podproof.fastapi.PodAuth(authenticator=authenticator)

    @app.get("/", dependencies=[Depends(auth)])
    async def root(request: Request) -> None:
        record(request.scope)
        assert request.scope[IDENTITY] is None or "authorization" not in request.headers

    @app.websocket("/", dependencies=[Depends(auth)])
    async def websocket(websocket: WebSocket) -> None:
        record(websocket.scope)
        await websocket.accept()

    return app


def _starlette(authenticator: Authenticator, record: Record) -> Starlette:
    async def root(request: Request) -> PlainTextResponse:
        record(request.scope)
        assert request.scope[IDENTITY] is None or "authorization" not in request.headers
        return PlainTextResponse("")

    backend = PodAuthBackend(authenticator=authenticator)
    return Starlette(
        routes=[Route("/", root)],
        middleware=[Middleware(AuthenticationMiddleware, backend=backend, on_error=on_error)],
    )


def _flask(authenticator: Authenticator, record: Record) -> Flask:
    app = Flask("attacked")
    podproof.flask.PodAuth(app, authenticator=authenticator)
    app.add_url_rule("/", view_func=_flask_view(record))
    return app


def _flask_view(record: Record) -> Callable[[], str]:
    def root() -> str:
        record(request.environ)
        assert request.environ[IDENTITY] is None or "Authorization" not in request.headers
        return ""

    return root


def _flask_blueprint(authenticator: Authenticator, record: Record) -> Flask:
    app, blueprint = Flask("attacked"), Blueprint("attacked", __name__)
    podproof.flask.PodAuth(authenticator=authenticator).init_app(blueprint)
    blueprint.add_url_rule("/", view_func=_flask_view(record))
    app.register_blueprint(blueprint)
    return app


def _at(path: str, app: Any) -> Any:
    return lambda environ, start_response: app({**environ, "PATH_INFO": path}, start_response)
