"""An app behind either middleware that records what reaches it, called with raw header lines as a server has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any, NamedTuple

import anyio

from podproof import PodIdentity, current_caller
from podproof._authentication.authenticator import Authenticator
from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware
from tests.support.fake_api import PEER

HeaderLine = tuple[str, str]


class Seen(NamedTuple):
    """What became of a request: the response's status, and what the app saw, None if it was not called."""

    status: int
    caller: PodIdentity | None = None
    headers: tuple[HeaderLine, ...] | None = None


class RecordingApp:
    """An app behind the middleware of one kind (wsgi or asgi), which gets header lines as they are.

    A WSGI server folds names and joins lines of one name with a comma, as gunicorn, Werkzeug and wsgiref do.
    """

    def __init__(self, kind: str, authenticator: Authenticator) -> None:
        self._kind = kind
        self._wsgi = WSGIMiddleware(self._wsgi_app, authenticator=authenticator)
        self._asgi = ASGIMiddleware(self._asgi_app, authenticator=authenticator)
        self._seen: tuple[PodIdentity | None, tuple[HeaderLine, ...]] | None = None

    def __call__(self, *lines: HeaderLine, path: str = "/", peer: str = PEER, **more: Any) -> Seen:
        """Send a GET with these header lines; `more` is put into the scope or the environ."""
        self._seen = None
        status = (
            self._call_wsgi(lines, path, peer, more)
            if self._kind == "wsgi"
            else self._call_asgi(lines, path, peer, more)
        )
        return Seen(status) if self._seen is None else Seen(status, *self._seen)

    def _call_wsgi(self, lines: Sequence[HeaderLine], path: str, peer: str, more: dict[str, Any]) -> int:
        environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": peer} | more
        for name, value in lines:
            key = "HTTP_" + name.upper().replace("-", "_")
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        statuses: list[str] = []

        def start_response(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], object]:
            statuses.append(status)
            return lambda _: None

        body: Any = self._wsgi(environ, start_response)
        list(body)
        if hasattr(body, "close"):
            body.close()
        return int(statuses[0][:3])

    def _call_asgi(self, lines: Sequence[HeaderLine], path: str, peer: str, more: dict[str, Any]) -> int:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in lines]
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "headers": headers,
            "client": (peer, 4711),
        } | more
        statuses: list[int] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request"}

        async def send(message: MutableMapping[str, Any]) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        anyio.run(self._asgi, scope, receive, send)
        return statuses[0]

    def _wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        fields = sorted((key.removeprefix("HTTP_"), value) for key, value in environ.items() if key.startswith("HTTP_"))
        self._record((name.replace("_", "-").lower(), value) for name, value in fields)
        start_response("200 OK", [])
        return [b"ok"]

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        self._record((name.decode(), value.decode("latin-1")) for name, value in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def _record(self, headers: Iterable[HeaderLine]) -> None:
        self._seen = current_caller(), tuple(headers)
