"""One small app behind the WSGI or the ASGI middleware, and a client that calls both in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from werkzeug.test import Client

from podproof._authentication.authenticator import Authenticator
from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware
from tests.support.fake_api import PEER, token


class ClientResponse(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class MiddlewareClient:
    """A client of an app behind the middleware of one kind (wsgi or asgi): it calls `inside`, and responds with 200.

    Without an authenticator, `middlewares` of both kinds are made with `options`.
    """

    def __init__(
        self,
        kind: str,
        authenticator: Authenticator | None,
        inside: Callable[[], object],
        *,
        middlewares: tuple[Callable[..., Any], Callable[..., Any]] = (WSGIMiddleware, ASGIMiddleware),
        **options: object,
    ) -> None:
        wsgi, asgi = middlewares
        if authenticator is not None:
            options["authenticator"] = authenticator
        self._wsgi = Client(wsgi(self._wsgi_app, **options))
        self._asgi = asgi(self._asgi_app, **options)
        self._kind = kind
        self._inside = inside

    def __call__(
        self, path: str = "/", *, method: str = "GET", headers: Mapping[str, str] | None = None, peer: str = PEER
    ) -> ClientResponse:
        """Request a path, by default with Alice's token; an empty header is not sent."""
        complete = {"Authorization": f"Bearer {token()}"} | dict(headers or {})
        complete = {name: value for name, value in complete.items() if value}
        url = f"http://bob{path}"
        if self._kind == "wsgi":
            environ = {"REMOTE_ADDR": peer, "HTTP_HOST": "bob", "RAW_URI": path, "REQUEST_URI": path}
            with self._wsgi.open(url, method=method, headers=complete, environ_overrides=environ) as sent:
                return ClientResponse(sent.status_code, _title_case(sent.headers.items()), sent.data)
        response = TestClient(self._asgi, client=(peer, 4711)).request(method, url, headers=complete)
        return ClientResponse(response.status_code, _title_case(response.headers.items()), response.content)

    def _wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self._inside()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    async def _asgi_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._inside()
        await PlainTextResponse("ok")(scope, receive, send)


def _title_case(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, value in headers:  # several lines of one header are one, joined by commas (RFC 9110 section 5.2)
        title = name.title()
        made[title] = f"{made[title]}, {value}" if title in made else value
    return made
