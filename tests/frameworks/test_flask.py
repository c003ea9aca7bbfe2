from __future__ import annotations

import pytest
from flask import Flask

from podproof.flask import PodAuthMiddleware, caller
from tests.answers import Door
from tests.frameworks.asked import KNOWN, wsgi


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def whoami() -> str:
        return f"{caller.service_account} in {caller.pod}"

    return app


def test_a_view_knows_its_caller(app: Flask, door: Door) -> None:
    assert wsgi(PodAuthMiddleware(app, authenticator=door()), "/") == (200, KNOWN)


def test_a_view_that_asks_for_the_caller_needs_one(app: Flask, door: Door) -> None:
    status, problem = wsgi(PodAuthMiddleware(app, authenticator=door(optional=True)), "/", known=False)
    assert status == 401
    assert "A bearer token is needed." in problem


def test_without_the_middleware_nothing_is_believed(app: Flask) -> None:
    app.testing = True
    with pytest.raises(RuntimeError, match="put a PodAuthMiddleware around this app"):
        wsgi(app, "/")
