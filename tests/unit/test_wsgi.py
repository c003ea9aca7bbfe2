from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from contextvars import Context, copy_context
from functools import partial
from types import SimpleNamespace
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, TestResponse, create_environ, run_wsgi_app
from werkzeug.wrappers import Request
from werkzeug.wsgi import wrap_file

from podproof import current_caller
from podproof._request.context import deny
from podproof._request.wsgi_body import SMALL_PIECE
from podproof.errors import ConfigurationError, IdentityEnded, NotAllowed
from podproof.wsgi import IDENTITY, PodAuthMiddleware
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, Clock, FakeAPI, review, token
from tests.support.modes import Mode

App = Callable[..., Iterable[bytes]]


def use_clock(monkeypatch: pytest.MonkeyPatch, time: Clock) -> None:
    for module in ("podproof.wsgi", "podproof._request.wsgi_body"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=time))


def show(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Respond with what the app got about its caller."""
    start_response("200 OK", [("Content-Type", "application/json")])
    identity, current = environ[IDENTITY], current_caller()
    shown = {
        "identity": identity and str(identity.service_account),
        "current": current and str(current.service_account),
        "keys": {key: environ.get(key) for key in ("REMOTE_USER", "AUTH_TYPE", "HTTP_AUTHORIZATION")},
        "everything": repr(environ),
    }
    return [json.dumps(shown).encode()]


def current_pod() -> str:
    caller = current_caller()
    return str(caller and caller.pod)


@pytest.fixture
def protected_app(make_authenticator: AuthenticatorFactory) -> App:
    return PodAuthMiddleware(show, authenticator=make_authenticator(exempt=["/healthz", "/public/*"]))


def get(app: Any, path: str = "/", *, peer: str | None = PEER, headers: Any = None, **request: Any) -> TestResponse:
    if headers is None:
        headers = {"Authorization": f"Bearer {token()}"}
    environ = {"REMOTE_ADDR": peer} if peer is not None else {}
    return Client(app).open(path, headers=headers, environ_overrides=environ, buffered=True, **request)


def test_the_app_gets_the_callers_identity(protected_app: App) -> None:
    response = get(protected_app)
    assert response.status_code == 200
    assert response.json is not None
    assert response.json["identity"] == response.json["current"] == "default/alice"
    assert response.json["keys"]["REMOTE_USER"] == "system:serviceaccount:default:alice"
    assert response.json["keys"]["AUTH_TYPE"] == "Bearer"


def test_a_cached_caller_is_not_reviewed_again(protected_app: App, fake_api: FakeAPI) -> None:
    for _ in range(3):
        assert get(protected_app).status_code == 200
    assert fake_api.reviews == 1


def test_the_middleware_follows_pep_3333(make_authenticator: AuthenticatorFactory) -> None:
    app = validator(PodAuthMiddleware(validator(show), authenticator=make_authenticator()))
    for headers, status in (({"Authorization": f"Bearer {token()}"}, "200 OK"), ({}, "401 UNAUTHORIZED")):
        environ = create_environ(headers=headers, environ_overrides={"REMOTE_ADDR": PEER, "SERVER_NAME": "bob"})
        body, status_line, _ = run_wsgi_app(app, environ)
        assert status_line.upper() == status
        assert b"".join(body)
        body.close()  # type: ignore[attr-defined]  # as an iterator of Werkzeug's has it


@pytest.mark.trap(36)
def test_the_token_is_removed_unless_the_path_is_exempt_or_keep_authorization_is_set(
    protected_app: App, make_authenticator: AuthenticatorFactory
) -> None:
    response = get(protected_app, "/")
    assert token() not in response.text
    assert response.json is not None
    assert response.json["keys"]["HTTP_AUTHORIZATION"] is None
    assert token() in get(protected_app, "/healthz").text  # an exempt path
    with_token = get(PodAuthMiddleware(show, authenticator=make_authenticator(keep_authorization=True)))
    assert token() in with_token.text


@pytest.mark.trap(39)
@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [
        ({}, 401, 'Bearer realm="bob"'),
        ({"Authorization": "Basic YTpi"}, 401, 'Bearer realm="bob"'),
        ({"Authorization": "Bearer a b"}, 400, 'Bearer realm="bob", error="invalid_request"'),
        ({"Authorization": "Bearer junk"}, 401, 'Bearer realm="bob", error="invalid_token"'),
        ({"Authorization": f"Bearer {token(aud=['eve'])}"}, 401, 'Bearer realm="bob", error="invalid_token"'),
    ],
)
def test_a_denied_request_gets_problem_details(protected_app: App, headers: Any, status: int, challenge: str) -> None:
    response = get(protected_app, headers=headers)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (status, challenge)
    assert response.mimetype == "application/problem+json"
    assert response.json is not None
    assert set(response.json) == {"type", "title", "status", "detail", "request_id"}


def test_a_wrong_address_is_403_and_an_api_server_failure_503(protected_app: App, fake_api: FakeAPI) -> None:
    assert get(protected_app, peer="10.1.2.99").status_code == 403
    fake_api.review = RuntimeError("away")
    response = get(protected_app, headers={"Authorization": f"Bearer {token(jti='2')}"})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "WWW-Authenticate" not in response.headers


@pytest.mark.trap(26)
@pytest.mark.parametrize("peer", [None, ""])
def test_a_request_through_a_unix_socket_is_denied(protected_app: App, peer: str | None) -> None:
    assert get(protected_app, peer=peer).status_code == 403


def test_a_denied_head_request_has_the_headers_and_no_body(protected_app: App) -> None:
    denied_get = get(protected_app, headers={}, method="GET")
    head = create_environ(method="HEAD", environ_overrides={"REMOTE_ADDR": PEER})
    body, status, headers = run_wsgi_app(protected_app, head)
    assert b"".join(body) == b""
    assert (status, headers["Content-Length"]) == ("401 Unauthorized", denied_get.headers["Content-Length"])


@pytest.mark.trap(34)
def test_two_authorization_headers_joined_by_the_server_are_denied(protected_app: App) -> None:
    assert get(protected_app, headers={"Authorization": f"Bearer {token()},Bearer {token()}"}).status_code == 400


@pytest.mark.trap(35)
def test_optional_allows_a_missing_credential_and_denies_a_bad_one(
    make_authenticator: AuthenticatorFactory,
) -> None:
    protected_app = PodAuthMiddleware(show, authenticator=make_authenticator(optional=True))
    response = get(protected_app, headers={})
    assert response.json is not None
    assert response.json["identity"] is response.json["current"] is response.json["keys"]["REMOTE_USER"] is None
    assert get(protected_app, headers={"Authorization": "Bearer junk"}).status_code == 401


@pytest.mark.trap(37)
def test_no_header_sets_an_identity(make_authenticator: AuthenticatorFactory) -> None:
    protected_app = PodAuthMiddleware(show, authenticator=make_authenticator(optional=True))
    names = ["podproof.identity", "Podproof-Identity", "podproof_identity", "Remote-User", "REMOTE_USER", "Auth-Type"]
    response = get(protected_app, headers=dict.fromkeys(names, "default/eve"))
    assert response.json is not None
    assert (
        response.json["identity"] is response.json["keys"]["REMOTE_USER"] is response.json["keys"]["AUTH_TYPE"] is None
    )


@pytest.mark.trap(38)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/healthz?a=%20", 200),
        ("/public/a", 200),
        ("//healthz", 401),
        ("/%68ealthz", 401),
        ("/public/%2e%2e/admin", 401),
        ("/public/../admin", 401),
        ("/healthz/../admin", 401),
        ("/healthz/", 401),
    ],
)
def test_an_exempt_path_is_exempt_in_its_plain_form_only(protected_app: App, path: str, status: int) -> None:
    environ = create_environ(environ_overrides={"REMOTE_ADDR": PEER, "REQUEST_URI": path, "RAW_URI": path})
    environ["PATH_INFO"] = path.partition("?")[0].replace("%68", "h").replace("%2e", ".")
    assert run_wsgi_app(protected_app, environ)[1][:3] == str(status)
    if "%" not in path.partition("?")[0]:
        del environ["RAW_URI"], environ["REQUEST_URI"]
        assert run_wsgi_app(protected_app, environ)[1][:3] == str(status)


@pytest.mark.trap(38)
@pytest.mark.parametrize(("path", "status"), [("/healthz", 401), ("/healthz/", 401), ("/healthz/healthz", 200)])
def test_an_exempt_path_of_a_mounted_app_is_relative_to_its_mount(protected_app: App, path: str, status: int) -> None:
    assert get(DispatcherMiddleware(show, {"/healthz": protected_app}), path, headers={}).status_code == status


@pytest.mark.trap(23)
def test_an_outer_proxy_fix_does_not_change_the_peer(protected_app: App) -> None:
    app = ProxyFix(protected_app, x_for=1)
    authorization = {"Authorization": f"Bearer {token()}"}
    assert get(app, headers=authorization).status_code == 200
    assert get(app, peer="10.1.2.99", headers=authorization | {"X-Forwarded-For": PEER}).status_code == 403


@pytest.mark.trap(23)
def test_an_outer_proxy_fix_does_not_hide_a_trusted_proxy(make_authenticator: AuthenticatorFactory) -> None:
    protected_app = PodAuthMiddleware(show, authenticator=make_authenticator(trusted_proxies=["10.9.0.0/16"]))
    headers = {"Authorization": f"Bearer {token()}", "X-Forwarded-For": PEER}
    assert get(ProxyFix(protected_app, x_for=1), peer="10.9.0.1", headers=headers).status_code == 200


@pytest.mark.trap(22)
def test_the_forwarded_header_of_a_trusted_proxy_is_used(make_authenticator: AuthenticatorFactory) -> None:
    protected_app = PodAuthMiddleware(show, authenticator=make_authenticator(trusted_proxies=["10.9.0.0/16"]))
    for headers, status in (
        ({"X-Forwarded-For": f"1.1.1.1, {PEER}"}, 200),
        ({"Forwarded": f"for=1.1.1.1, for={PEER}"}, 200),
        ({"X-Forwarded-For": f"{PEER}, 10.1.2.99"}, 403),
        ({}, 403),
    ):
        authorization = {"Authorization": f"Bearer {token()}"}
        assert get(protected_app, peer="10.9.0.1", headers=authorization | headers).status_code == status
        assert get(protected_app, peer="10.8.0.1", headers=authorization | headers).status_code == 403


def test_the_caller_is_current_until_the_response_is_sent_and_no_longer(
    make_authenticator: AuthenticatorFactory,
) -> None:
    closed: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield current_pod().encode()

        def close(self) -> None:
            closed.append(current_pod())

    def stream(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return Body()

    response = get(PodAuthMiddleware(stream, authenticator=make_authenticator()))
    assert response.text == "default/alice-pod"
    assert closed == ["default/alice-pod"]
    assert current_caller() is None


@pytest.mark.trap(51)
@pytest.mark.parametrize(
    "ending", ["raises", "denies", "returns None", "streams and fails", "closed in another thread"]
)
def test_a_context_copy_that_outlives_its_request_has_no_caller(
    make_authenticator: AuthenticatorFactory, ending: str
) -> None:
    contexts: list[Context] = []

    def app(environ: Any, start_response: Any) -> Any:
        contexts.append(copy_context())
        assert current_caller() is not None
        if ending == "raises":
            raise ZeroDivisionError
        if ending == "denies":
            raise NotAllowed("not here")
        start_response("200 OK", [])
        if ending == "returns None":
            return None
        return stream()

    def stream() -> Iterator[bytes]:
        yield b"a"
        if ending == "streams and fails":
            raise ZeroDivisionError
        yield b"b"

    environ = create_environ(headers={"Authorization": f"Bearer {token()}"}, environ_overrides={"REMOTE_ADDR": PEER})
    failing = ending in ("raises", "returns None", "streams and fails")
    with pytest.raises((ZeroDivisionError, TypeError)) if failing else nullcontext():
        body = PodAuthMiddleware(app, authenticator=make_authenticator())(environ, lambda *_: lambda _: None)
        try:
            b"".join(body)
        finally:
            if ending == "closed in another thread":
                thread = threading.Thread(target=body.close)  # type: ignore[attr-defined]
                thread.start()
                thread.join()
            elif hasattr(body, "close"):
                body.close()
    assert contexts[0].run(current_caller) is None
    assert current_caller() is None
    with pytest.raises(RuntimeError, match="did not pass through"):
        contexts[0].run(deny, NotAllowed("late"))


@pytest.mark.trap(62)
def test_a_response_that_starts_after_the_token_expired_is_sent_whole(
    make_authenticator: AuthenticatorFactory, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch, time)

    def slow(environ: Any, start_response: Any) -> list[bytes]:
        time.passes(65)
        start_response("200 OK", [])
        return [b"done"]

    protected_app = PodAuthMiddleware(slow, authenticator=make_authenticator())
    assert get(protected_app, headers={"Authorization": f"Bearer {token(exp=NOW + 5)}"}).text == "done"


def test_a_file_for_an_anonymous_caller_reaches_the_server_as_it_is(make_authenticator: AuthenticatorFactory) -> None:
    def send(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"content"))

    given = {"REMOTE_ADDR": PEER, "wsgi.file_wrapper": FileWrapper}
    body = PodAuthMiddleware(send, authenticator=make_authenticator(optional=True))(
        create_environ(environ_overrides=given), lambda *_: lambda _: None
    )
    assert isinstance(body, FileWrapper)
    assert current_caller() is None


def stream_file(environ: Any, start_response: Any) -> Any:
    """Send a file of 16 bytes as frameworks do: by the server's wrapper, else by Werkzeug's."""
    start_response("200 OK", [])
    return wrap_file(environ, io.BytesIO(b"0123456789abcdef"), buffer_size=4)


@pytest.mark.trap(31, 62)
def test_a_file_is_broken_off_when_the_token_expires(
    make_authenticator: AuthenticatorFactory, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch, time)
    headers = {"Authorization": f"Bearer {token(exp=NOW + 5)}"}
    servers = type("ServersFileWrapper", (FileWrapper,), {})
    app = PodAuthMiddleware(stream_file, authenticator=make_authenticator())
    environ = create_environ(headers=headers, environ_overrides={"REMOTE_ADDR": PEER, "wsgi.file_wrapper": servers})
    body = app(environ, lambda *_: lambda _: None)
    assert not isinstance(body, servers)
    assert not isinstance(body, environ["wsgi.file_wrapper"])  # gunicorn looks there when the app is done
    chunks = iter(body)
    assert [next(chunks), next(chunks)] == [b"0123", b"4567"]
    time.passes(5)
    with pytest.raises(IdentityEnded):
        next(chunks)


@pytest.mark.trap(62)
def test_an_empty_first_chunk_is_not_the_beginning_of_a_response(
    make_authenticator: AuthenticatorFactory, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch, time)

    def slow(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        time.passes(65)
        yield b""
        yield b"done"

    bob = PodAuthMiddleware(slow, authenticator=make_authenticator())
    assert get(bob, headers={"Authorization": f"Bearer {token(exp=NOW + 5)}"}).text == "done"


class SlowUpload(io.BytesIO):
    """A request's body of which each byte takes a tenth of a second; like a server's, it waits for all it is asked."""

    def __init__(self, content: bytes, time: Clock) -> None:
        super().__init__(content)
        self.time = time
        self.name_of_server = "slow"

    def read(self, size: int | None = -1, /) -> bytes:
        return self._after(super().read(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._after(super().readline(size))

    def _after(self, piece: bytes) -> bytes:
        self.time.passes(len(piece) / 10)
        return piece


READERS: dict[str, Callable[[Any], object]] = {
    "read()": lambda body: body.read(),
    "read(-1)": lambda body: body.read(-1),
    "read(None)": lambda body: body.read(None),
    "read(n)": lambda body: body.read(10_000),
    "read(n), in pieces": lambda body: b"".join(iter(partial(body.read, 7), b"")),
    "readline()": lambda body: b"".join(iter(body.readline, b"")),
    "readline(n)": lambda body: b"".join(iter(partial(body.readline, 5), b"")),
    "readlines()": lambda body: b"".join(body.readlines()),
    "readlines(n)": lambda body: b"".join(body.readlines(10)),
    "iteration": b"".join,
    "get_data": lambda body: Request(
        create_environ(input_stream=body, environ_overrides={"wsgi.input_terminated": True})
    ).get_data(),
}
UPLOADS = [b"", b"\n", b"short", b"a line\nand another\n" * 40, b"x" * 63 + b"\n" + b"y" * 64, bytes(5000)]


@pytest.mark.trap(62)
@pytest.mark.parametrize("lifetime", [30, 3600])
@pytest.mark.parametrize("upload", UPLOADS, ids=len)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_request_body_reads_as_it_was_sent_and_only_until_the_token_expires(
    make_authenticator: AuthenticatorFactory,
    time: Clock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    read: Callable[[Any], object],
    upload: bytes,
    lifetime: float,
) -> None:
    use_clock(monkeypatch, time)
    seen: list[object] = []
    began = time()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert environ["wsgi.input"].name_of_server == "slow"
        assert not hasattr(environ["wsgi.input"], "readinto")  # which Werkzeug would read by, past the limit
        try:
            seen.append(read(environ["wsgi.input"]))
        except OSError as error:
            seen.append(type(error))
        start_response("200 OK", [])
        return [b"done"]

    headers = {"Authorization": f"Bearer {token(exp=NOW + lifetime)}"}
    environ = create_environ(
        method="POST", headers=headers, environ_overrides={"REMOTE_ADDR": PEER, "wsgi.input": SlowUpload(upload, time)}
    )
    assert run_wsgi_app(PodAuthMiddleware(app, authenticator=make_authenticator()), environ)[1] == "200 OK"
    in_time = len(upload) / 10 < lifetime
    assert seen == [upload if in_time else IdentityEnded]
    assert time() - began < lifetime + SMALL_PIECE / 10


@pytest.mark.trap(62)
@pytest.mark.parametrize("method", ["read", "readline"])
@pytest.mark.parametrize("size", [0, 1, 10, 5000])
def test_no_more_of_a_request_body_is_read_than_the_app_asks_for(
    make_authenticator: AuthenticatorFactory, time: Clock, method: str, size: int
) -> None:
    upload = SlowUpload(bytes(10_000), time)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert getattr(environ["wsgi.input"], method)(size) == bytes(size)
        start_response("200 OK", [])
        return []

    headers = {"Authorization": f"Bearer {token()}"}
    environ = create_environ(headers=headers, environ_overrides={"REMOTE_ADDR": PEER, "wsgi.input": upload})
    run_wsgi_app(PodAuthMiddleware(app, authenticator=make_authenticator()), environ)
    assert upload.tell() == size


@pytest.mark.trap(31)
def test_a_response_is_broken_off_when_the_token_expires(
    make_authenticator: AuthenticatorFactory, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch, time)

    def stream(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(9):
            yield b"event\n"
            time.passes(1)

    app = PodAuthMiddleware(stream, authenticator=make_authenticator())
    authorization = {"Authorization": f"Bearer {token(exp=NOW + 5)}"}
    body, _, _ = run_wsgi_app(app, create_environ(headers=authorization, environ_overrides={"REMOTE_ADDR": PEER}))
    sent: list[bytes] = []
    with pytest.raises(IdentityEnded):
        sent.extend(body)
    body.close()  # type: ignore[attr-defined]  # as what Werkzeug gives has it
    assert len(sent) == 5


@pytest.mark.trap(33)
def test_no_log_line_has_the_token(
    protected_app: App, fake_api: FakeAPI, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    fake_api.review = review(error=token(), authenticated=False)
    headers = [{"Authorization": f"Bearer {token()}"}, {"Authorization": f"Bearer {token()} x"}]
    statuses = [get(protected_app, headers=one).status_code for one in headers]
    assert statuses == [503 if mode.verify == "review" else 200, 400]
    assert sum(record.name == "podproof.audit" for record in caplog.records) == 2
    assert token() not in caplog.text
    assert token().split(".")[1] not in caplog.text


def test_a_denial_is_logged_with_peer_method_and_path(protected_app: App, caplog: pytest.LogCaptureFixture) -> None:
    get(DispatcherMiddleware(show, {"/mount": protected_app}), "/mount/a", headers={}, method="DELETE")
    assert f"peer={PEER} request=DELETE '/mount/a'" in caplog.messages[0]


def test_a_wrong_option_fails_the_constructor() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'audience'"):
        PodAuthMiddleware(show, audiences="bob")  # type: ignore[call-arg]  # a wrong option on purpose


def run_app(app: Any, make_authenticator: AuthenticatorFactory) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """Return how an app's response was started, and its parts, those that it wrote at once included."""
    started: list[tuple[Any, ...]] = []
    parts: list[bytes] = []

    def start_response(*arguments: Any) -> Callable[[bytes], object]:
        started.append(arguments)
        return parts.append

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "REMOTE_ADDR": PEER,
        "HTTP_AUTHORIZATION": f"Bearer {token()}",
    }
    body: Any = PodAuthMiddleware(app, authenticator=make_authenticator())(environ, start_response)
    try:
        parts.extend(body)
    finally:
        body.close()
    return started, parts


def test_an_app_can_write_its_body_at_once(make_authenticator: AuthenticatorFactory) -> None:
    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"a")
        write(b"b")
        return [b"c"]

    assert run_app(app, make_authenticator) == ([("200 OK", [])], [b"a", b"b", b"c"])


@pytest.mark.trap(31, 62)
def test_writing_ends_with_the_token_but_never_before_the_first_byte(
    make_authenticator: AuthenticatorFactory, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch, time)

    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        time.passes(4000)
        write(b"")
        write(b"a")
        with pytest.raises(IdentityEnded):
            write(b"b")
        return []

    assert run_app(app, make_authenticator) == ([("200 OK", [])], [b"", b"a"])


@pytest.mark.trap(64)
def test_a_denial_that_a_framework_made_an_error_of_is_the_middlewares_response(
    make_authenticator: AuthenticatorFactory,
) -> None:
    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        deny(NotAllowed("secret reason"))
        start_response("500 Internal Server Error", [])(b"leaked")
        return [b"leaked"]

    started, parts = run_app(app, make_authenticator)
    assert [status for status, _ in started] == ["403 Forbidden"]
    assert b"leaked" not in b"".join(parts)
    assert b"secret" not in b"".join(parts)
    assert b"The caller is not allowed here." in b"".join(parts)


@pytest.mark.parametrize("generator", [False, True])
def test_a_denial_after_the_first_part_is_an_error_of_the_app(
    make_authenticator: AuthenticatorFactory, *, generator: bool
) -> None:
    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])(b"a")
        raise NotAllowed("too late")

    def generated(environ: Any, start_response: Any) -> Iterable[bytes]:
        yield from app(environ, start_response)

    with pytest.raises(NotAllowed, match="too late"):
        run_app(generated if generator else app, make_authenticator)
    assert current_caller() is None


def test_an_app_can_start_its_response_anew_until_the_first_part(make_authenticator: AuthenticatorFactory) -> None:
    def app(_: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("404 Not Found", [], (ValueError, ValueError(), None))
        yield b"a"
        start_response("500 Internal Server Error", [], (ValueError, ValueError(), None))

    started, parts = run_app(app, make_authenticator)
    assert [status for status, *_ in started] == ["404 Not Found", "500 Internal Server Error"]
    assert parts == [b"a"]


def test_an_app_that_starts_no_response_is_left_to_the_server(make_authenticator: AuthenticatorFactory) -> None:
    assert run_app(lambda *_: [b"a"], make_authenticator) == ([], [b"a"])


def test_outside_a_request_there_is_nothing_to_deny() -> None:
    with pytest.raises(RuntimeError, match="did not pass through PodAuthMiddleware"):
        deny(NotAllowed("why"))


def test_a_response_without_a_chunk_is_sent(make_authenticator: AuthenticatorFactory) -> None:
    def nothing(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("204 No Content", [])
        return iter(())

    response = get(PodAuthMiddleware(nothing, authenticator=make_authenticator()))
    assert (response.status_code, response.data) == (204, b"")
