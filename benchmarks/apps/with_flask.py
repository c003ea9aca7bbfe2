"""A Flask app, bare and behind podproof."""

from __future__ import annotations

from flask import Flask

from benchmarks.extras import leave_out
from benchmarks.fakes import AUDIENCE


def bare() -> Flask:
    """Return the app."""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "hello")
    return app


def podproof() -> Flask:
    """Return it behind podproof as `pip install podproof` has it."""
    leave_out()
    from podproof.wsgi import PodAuthMiddleware  # noqa: PLC0415  after leave_out

    app = bare()
    app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience=AUDIENCE)  # type: ignore[method-assign]
    return app
