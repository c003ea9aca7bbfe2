"""`podproof.flask.PodAuth`: hooks of an app or a blueprint in the place of the middleware."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Blueprint, Flask, Response, abort, jsonify, request, send_file
from opentelemetry.sdk.trace import TracerProvider
from werkzeug.test import Client, TestResponse

from podproof import Rule, current_caller, require
from podproof.errors import IdentityEnded
from podproof.flask import PodAuth, caller
from tests.process.frameworks.framework_clients import ALICE, AUTHORIZATION
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, Clock, token


def make_blueprint() -> Blueprint:
    pods = Blueprint("pods", __name__, url_prefix="/pods")

    @pods.get("/whoami")
    def whoami() -> Response:
        assert caller == current_caller()
        keys = ("REMOTE_USER", "AUTH_TYPE", "HTTP_AUTHORIZATION")
        return jsonify([f"{caller.service_account} in {caller.pod}", *(request.environ.get(key) for key in keys)])

    @pods.get("/batch")
    @require("batch/*")
    def for_batch() -> str:
        raise AssertionError

    @pods.get("/missing")
    def missing() -> str:
        abort(404)

    @pods.get("/broken")
    def broken() -> str:
        raise ValueError

    @pods.get("/stream")
    def stream() -> Response:
        return Response(iter([b"first", b"second"]))

    @pods.get("/file")
    def file() -> Response:
        return send_file(io.BytesIO(b"a file"), mimetype="text/plain")

    @pods.post("/upload")
    def upload() -> str:
        return str(len(request.get_data()))

    @pods.get("/thread")
    def thread() -> str:
        request.environ["later"].append(copy_context())
        return "started"

    return pods


def app_with(blueprint: Blueprint) -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/open", view_func=lambda: repr(current_caller()))
    app.register_blueprint(blueprint)
    return app


@pytest.fixture
def app(make_authenticator: AuthenticatorFactory) -> Flask:
    """Return an app of which the blueprint at /pods is authenticated."""
    pods = make_blueprint()
    PodAuth(pods, authenticator=make_authenticator())
    return app_with(pods)


def get(app: Flask, path: str, *, anonymous: bool = False, **more: Any) -> TestResponse:
    headers = {} if anonymous else AUTHORIZATION
    environ = {"REMOTE_ADDR": PEER} | more.pop("environ", {})
    return Client(app).open(path, headers=headers | more.pop("headers", {}), environ_overrides=environ, **more)


def test_a_view_of_the_blueprint_gets_its_caller_and_no_token(app: Flask) -> None:
    user = "system:serviceaccount:default:alice"
    assert get(app, "/pods/whoami").json == [ALICE, user, "Bearer", None]


def test_other_views_need_no_token(app: Flask) -> None:
    assert get(app, "/open", anonymous=True).text == "None"
    assert get(app, "/no-such-path", anonymous=True).status_code == 404


@pytest.mark.parametrize("testing", [False, True])
def test_a_denial_is_the_middleware_s(app: Flask, *, testing: bool) -> None:
    app.testing = testing
    app.register_error_handler(401, lambda _: ("mine", 401))
    app.register_error_handler(403, lambda _: ("mine", 403))
    for path, status in (("whoami", 401), ("batch", 403)):
        response = get(app, f"/pods/{path}", anonymous=status == 401)
        assert (response.status_code, response.json["status"]) == (status, status)  # type: ignore[index]
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="bob"')


def test_a_whole_app_is_authenticated_before_its_other_hooks_and_also_where_it_has_no_route(
    make_authenticator: AuthenticatorFactory,
) -> None:
    app, seen = Flask(__name__), []
    app.before_request(lambda: seen.append(request.headers.get("Authorization")))
    PodAuth(app, authenticator=make_authenticator(exempt=["/healthz"]))
    app.add_url_rule("/", "root", lambda: str(caller.pod))
    app.add_url_rule("/healthz", "healthz", lambda: "ok")
    assert get(app, "/").text == "default/alice-pod"
    assert seen == [None]
    assert get(app, "/no-such-path", anonymous=True).status_code == 401
    assert get(app, "/healthz", anonymous=True).text == "ok"
    assert get(app, "/healthz/", anonymous=True).status_code == 401


def test_one_object_is_for_several_blueprints_and_a_nested_one_is_covered(
    make_authenticator: AuthenticatorFactory,
) -> None:
    auth, app = PodAuth(authenticator=make_authenticator()), Flask(__name__)
    outer, other, inner = (Blueprint(name, __name__, url_prefix=f"/{name}") for name in ("outer", "other", "inner"))
    for blueprint in (outer, other):
        auth.init_app(blueprint)
    for blueprint in (other, inner):
        blueprint.add_url_rule("/", view_func=lambda: str(caller.pod))
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    app.register_blueprint(other)
    for path in ("/other/", "/outer/inner/"):
        assert get(app, path).text == "default/alice-pod"
        assert get(app, path, anonymous=True).status_code == 401


def test_a_rule_is_about_the_path_as_the_app_routes_it(make_authenticator: AuthenticatorFactory) -> None:
    pods = make_blueprint()
    PodAuth(pods, authenticator=make_authenticator(rules=[Rule("/pods/whoami", allow=["default/alice"])]))
    app = app_with(pods)
    assert [get(app, f"/pods/{path}").status_code for path in ("whoami", "missing")] == [200, 403]


def test_each_request_is_one_record_with_the_status_of_its_response(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "podproof.audit"):
        for path in ("whoami", "batch", "missing", "broken", "stream"):
            get(app, f"/pods/{path}")
        app.testing = True
        with pytest.raises(ValueError, match=r"^$"):
            get(app, "/pods/broken")
        get(app, "/pods/whoami", anonymous=True)
    records = [vars(record) for record in caplog.records if record.name == "podproof.audit"]
    assert [(record["decision"], record["status"]) for record in records] == [
        ("allowed", 200),
        ("denied", 403),
        ("allowed", 404),
        ("allowed", 500),
        ("allowed", 200),
        ("allowed", 500),
        ("denied", 401),
    ]


def test_an_identity_ends_with_its_request(app: Flask) -> None:
    later: list[Any] = []
    assert get(app, "/pods/thread", environ={"later": later}).text == "started"
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(later[0].run(current_caller)))
    thread.start()
    thread.join()
    assert seen == [None]
    assert current_caller() is None
    assert get(app, "/open").text == "None"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, time: Clock) -> Clock:
    for module in ("in_app", "wsgi_body"):
        monkeypatch.setattr(f"podproof._request.{module}.time", SimpleNamespace(monotonic=time))
    return time


def test_a_streamed_response_ends_with_the_token_and_never_before_its_first_chunk(app: Flask, clock: Clock) -> None:
    response = get(app, "/pods/stream", headers={"Authorization": f"Bearer {token(exp=NOW + 5)}"})
    chunks = iter(cast("Iterable[bytes]", response.response))
    clock.passes(10)
    with pytest.raises(IdentityEnded):
        list(chunks)
    response.close()


def test_a_streamed_response_and_a_file_are_sent_whole_before_that(app: Flask) -> None:
    assert get(app, "/pods/stream").data == b"firstsecond"
    assert get(app, "/pods/file").data == b"a file"
    assert get(app, "/pods/stream", method="HEAD").data == b""


def test_a_request_body_is_read_until_the_token_ends(app: Flask, clock: Clock) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            clock.passes(10)
            return super().read(size)

    headers = {"Authorization": f"Bearer {token(exp=NOW + 5)}"}
    assert get(app, "/pods/upload", method="POST", data=b"whole").text == "5"
    slow = get(app, "/pods/upload", method="POST", input_stream=Slow(b"slow"), content_length=4, headers=headers)
    assert slow.status_code == 400  # Werkzeug takes it for a client that has gone


def test_an_optional_caller_is_none(make_authenticator: AuthenticatorFactory) -> None:
    pods = make_blueprint()
    PodAuth(pods, authenticator=make_authenticator(optional=True))
    app = app_with(pods)
    assert get(app, "/pods/missing", anonymous=True).status_code == 404
    assert get(app, "/pods/whoami", anonymous=True).status_code == 401
    assert get(app, "/pods/missing", headers={"Authorization": "Bearer x"}).status_code == 401


def test_two_around_one_view_deny_and_say_so(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture
) -> None:
    pods = make_blueprint()
    auth = PodAuth(pods, authenticator=make_authenticator())
    app = app_with(pods)
    auth.init_app(app)
    assert get(app, "/pods/whoami").status_code == 401
    assert "wrap the app once" in caplog.text


def test_the_token_stays_on_the_request_if_it_is_kept_and_the_caller_is_on_the_span(
    make_authenticator: AuthenticatorFactory,
) -> None:
    pods = make_blueprint()
    PodAuth(pods, authenticator=make_authenticator(keep_authorization=True))
    with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
        assert get(app_with(pods), "/pods/whoami").json[-1] == AUTHORIZATION["Authorization"]  # type: ignore[index]
    assert "alice-pod" in getattr(span, "attributes", {}).values()
