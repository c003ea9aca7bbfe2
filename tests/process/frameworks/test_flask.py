from __future__ import annotations

import json
import pickle

import pytest
from flask import Flask, Response, jsonify

from podproof.flask import PodAuthMiddleware, caller
from tests.process.frameworks.framework_clients import ALICE, wsgi_get
from tests.support.fake_api import AuthenticatorFactory


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def whoami() -> str:
        return f"{caller.service_account} in {caller.pod}"

    @app.get("/json")
    def caller_as_json() -> Response:
        return jsonify(caller)

    @app.get("/pickle")
    def caller_to_a_queue() -> str:
        return repr(pickle.loads(pickle.dumps(caller)))

    return app


def test_a_view_gets_its_caller(app: Flask, make_authenticator: AuthenticatorFactory) -> None:
    assert wsgi_get(PodAuthMiddleware(app, authenticator=make_authenticator()), "/") == (200, ALICE)


def test_the_caller_is_encoded_as_json(app: Flask, make_authenticator: AuthenticatorFactory) -> None:
    status, text = wsgi_get(PodAuthMiddleware(app, authenticator=make_authenticator()), "/json")
    assert status == 200
    assert json.loads(text)["pod"]["name"] == "alice-pod"
    assert json.loads(text)["extra"]["authentication.kubernetes.io/pod-uid"] == ["pod-uid"]


def test_the_caller_is_pickled_as_its_identity(app: Flask, make_authenticator: AuthenticatorFactory) -> None:
    status, text = wsgi_get(PodAuthMiddleware(app, authenticator=make_authenticator()), "/pickle")
    assert status == 200
    assert text.startswith("PodIdentity(service_account=ServiceAccount(namespace='default', name='alice'")


def test_an_anonymous_request_to_a_view_with_a_caller_is_denied(
    app: Flask, make_authenticator: AuthenticatorFactory
) -> None:
    status, problem = wsgi_get(
        PodAuthMiddleware(app, authenticator=make_authenticator(optional=True)), "/", anonymous=True
    )
    assert status == 401
    assert "A bearer token is needed." in problem


def test_a_request_that_did_not_pass_through_the_middleware_is_an_error(app: Flask) -> None:
    app.testing = True
    with pytest.raises(RuntimeError, match="this request did not pass through PodAuthMiddleware"):
        wsgi_get(app, "/")
