"""A Starlette app, bare and behind each competitor."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from ssl import create_default_context
from typing import Any

import jwt
from jwt import PyJWKClient
from kubernetes.client import Configuration
from kubernetes.config import load_kube_config
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from benchmarks import AUDIENCE, leave_out_extras


async def _hello(_: Request) -> Response:
    return PlainTextResponse("hello")


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def _accept(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def bare() -> Starlette:
    """Return the app."""
    routes = [Route("/", _hello), Route("/echo", _echo, methods=["POST"]), WebSocketRoute("/ws", _accept)]
    return Starlette(routes=routes)


def podproof() -> Starlette:
    """Return it behind podproof without metrics and traces."""
    leave_out_extras()
    return podproof_and_extras()


def podproof_and_extras() -> Starlette:
    """Return it behind podproof with metrics and traces installed, and neither collected."""
    return _behind_podproof()


def with_rules() -> Starlette:
    """Return it behind podproof with rules."""
    leave_out_extras()
    from podproof import Rule  # noqa: PLC0415  after leave_out_extras

    return _behind_podproof(rules=[Rule("/*", allow=["default/*"])])


def with_exempt() -> Starlette:
    """Return it behind podproof, with a path that is exempt."""
    leave_out_extras()
    return _behind_podproof(exempt=["/"])


def with_source_address_off() -> Starlette:
    """Return it behind podproof, which does not compare addresses."""
    leave_out_extras()
    return _behind_podproof(source_address="off")


def _behind_podproof(**options: Any) -> Starlette:
    from podproof.asgi import PodAuthMiddleware  # noqa: PLC0415  after leave_out_extras

    app = bare()
    app.add_middleware(PodAuthMiddleware, audience=AUDIENCE, **options)
    return app


class _Minimum:
    """Accepts every token from the address that it first came from: the least without keeping tokens."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._callers: dict[bytes, tuple[float, str, BaseUser]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"authorization":
                    address = scope["client"][0]
                    forever = time.monotonic() + 86_400, address, SimpleUser("default/alice")
                    end, first, user = self._callers.setdefault(sha256(value).digest(), forever)
                    if time.monotonic() > end or address != first:
                        raise PermissionError
                    scope["user"] = user
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"authorization"]
        await self._app(scope, receive, send)


def minimum() -> Starlette:
    """Return it behind the least that one can do: a hash and a dict."""
    app = bare()
    app.add_middleware(_Minimum)
    return app


class _EmptyBackend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:  # noqa: ARG002
        return None


def authentication() -> Starlette:
    """Return it behind Starlette's own middleware, with a backend that does nothing."""
    app = bare()
    app.add_middleware(AuthenticationMiddleware, backend=_EmptyBackend())
    return app


async def _pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


def base_http() -> Starlette:
    """Return it behind a `BaseHTTPMiddleware` that does nothing."""
    app = bare()
    app.add_middleware(BaseHTTPMiddleware, dispatch=_pass_on)
    return app


class _SignatureBackend(AuthenticationBackend):
    """Checks the signature of each request's token; neither its pod nor the address."""

    def __init__(self) -> None:
        configuration = Configuration()
        load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        self._keys = PyJWKClient(
            f"{configuration.host}/openid/v1/jwks",
            headers={"Authorization": configuration.auth_settings()["BearerToken"]["value"]},
            ssl_context=create_default_context(cafile=configuration.ssl_ca_cert),
        )

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        token = conn.headers["Authorization"].removeprefix("Bearer ")
        key = self._keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE)
        return AuthCredentials(["authenticated"]), SimpleUser(claims["sub"])


def pyjwt() -> Starlette:
    """Return it behind PyJWT on each request."""
    app = bare()
    app.add_middleware(AuthenticationMiddleware, backend=_SignatureBackend())
    return app
