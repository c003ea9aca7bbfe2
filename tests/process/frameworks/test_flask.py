from __future__ import annotations

import pytest
from flask import Flask

from podproof.flask import PodAuthMiddleware, caller
from tests.process.frameworks.requests_sent import KNOWN, wsgi
from tests.support.fake_api import AuthenticatorFactory


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def whoami() -> str:
        return f"{caller.service_account} in {caller.pod}"

    return app


def test_a_view_knows_its_caller(app: Flask, make_authenticator: AuthenticatorFactory) -> None:
    assert wsgi(PodAuthMiddleware(app, authenticator=make_authenticator()), "/") == (200, KNOWN)


def test_a_view_that_asks_for_the_caller_needs_one(app: Flask, make_authenticator: AuthenticatorFactory) -> None:
    status, problem = wsgi(PodAuthMiddleware(app, authenticator=make_authenticator(optional=True)), "/", known=False)
    assert status == 401
    assert "A bearer token is needed." in problem


def test_without_the_middleware_nothing_is_believed(app: Flask) -> None:
    app.testing = True
    with pytest.raises(RuntimeError, match="put a PodAuthMiddleware around this app"):
        wsgi(app, "/")
