"""A Flask app, bare and behind podproof."""

from __future__ import annotations

import time
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

from flask import Flask

from benchmarks import AUDIENCE, leave_out_extras

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def bare() -> Flask:
    """Return the app."""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "hello")
    return app


class _Minimum:
    """Accepts every token from the address that it first came from: the least without keeping tokens."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._callers: dict[bytes, tuple[float, str, str]] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        token, address = environ.pop("HTTP_AUTHORIZATION"), environ["REMOTE_ADDR"]
        forever = time.monotonic() + 86_400, address, "default/alice"
        end, first, user = self._callers.setdefault(sha256(token.encode()).digest(), forever)
        if time.monotonic() > end or address != first:
            raise PermissionError
        environ["REMOTE_USER"] = user
        return self._app(environ, start_response)


def minimum() -> Flask:
    """Return it behind the least that one can do: a hash and a dict."""
    app = bare()
    app.wsgi_app = _Minimum(app.wsgi_app)  # type: ignore[method-assign]
    return app


def podproof() -> Flask:
    """Return it behind podproof without metrics and traces."""
    leave_out_extras()
    from podproof.wsgi import PodAuthMiddleware  # noqa: PLC0415  after leave_out_extras

    app = bare()
    app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience=AUDIENCE)  # type: ignore[method-assign]
    return app
