"""One app behind the WSGI and the ASGI middleware, asked in the same words."""

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


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class MiddlewareClient:
    """An app that answers 200, after it has run `inside`, behind a middleware of one kind."""

    def __init__(self, kind: str, authenticator: Authenticator, inside: Callable[[], object]) -> None:
        self._wsgi = Client(WSGIMiddleware(self._wsgi_app, authenticator=authenticator))
        self._asgi = ASGIMiddleware(self._asgi_app, authenticator=authenticator)
        self._kind = kind
        self._inside = inside

    def __call__(
        self, path: str = "/", *, method: str = "GET", headers: Mapping[str, str] | None = None, peer: str = PEER
    ) -> Answer:
        """Ask for a path, by default with Alice's token."""
        given = {"Authorization": f"Bearer {token()}"} | dict(headers or {})
        given = {name: value for name, value in given.items() if value}
        url = f"http://bob{path}"
        if self._kind == "wsgi":
            environ = {"REMOTE_ADDR": peer}
            with self._wsgi.open(url, method=method, headers=given, environ_overrides=environ) as answer:
                return Answer(answer.status_code, _titled(answer.headers.items()), answer.data)
        response = TestClient(self._asgi, client=(peer, 4711)).request(method, url, headers=given)
        return Answer(response.status_code, _titled(response.headers.items()), response.content)

    def _wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self._inside()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    async def _asgi_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._inside()
        await PlainTextResponse("ok")(scope, receive, send)


def _titled(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.title(): value for name, value in headers}
