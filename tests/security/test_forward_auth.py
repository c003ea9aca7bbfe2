"""Forward auth behind real proxies, each configured as documented: what a middleware denies reaches no app."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podproof._request.context import IDENTITY
from podproof._request.original_request import Proxy
from podproof.cli.proxy_configurations import configure_proxy
from podproof.forward_auth import ForwardAuth
from tests.security import caddy, envoy, hostile_tokens, nginx
from tests.security.attacked_app import ALICE, LOCAL, MALLORY, AttackedApp, AttackEnv
from tests.security.hostile_headers import authorizations, other_headers, unfold
from tests.security.proxy_process import running_proxy
from tests.security.recording_upstream import recording_upstream
from tests.support.leak_detector import LeakDetector
from tests.support.modes import AUTO, DEFAULT, Mode, pairs_in_turn
from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess, free_port, raw_request, run_server

BINARIES = {"caddy": caddy.BINARY, "envoy": envoy.BINARY}
if nginx.BINARY or nginx.REQUIRED:
    BINARIES["nginx"] = Path(str(nginx.BINARY))
MORE = {"envoy": ["--concurrency", "1", "--disable-hot-restart", "-l", "warning"]}

RULES = """\
rules:
  - {path: /admin, allow: [default/mallory]}
  - {path: /admin/*, allow: [default/mallory]}
  - {path: /orders, methods: [GET, HEAD, POST, OPTIONS], allow: [default/alice]}
  - {path: /orders/*, methods: [GET], allow: [default/alice]}
"""


@dataclass(frozen=True)
class Place:
    """A proxy with an app behind it, the server that it asks, and the tokens of Alice and Mallory."""

    kind: str
    proxy: ServerProcess
    forward_auth: ServerProcess
    tokens: Mapping[str, str]

    def send(self, source: str, request: bytes) -> tuple[list[int], bytes]:
        """Send bytes from an address; return the status of every response, and all that was received."""
        received = b""
        with (
            suppress(ConnectionResetError, BrokenPipeError),
            socket.create_connection(("127.0.0.1", self.proxy.port), TIMEOUT_SECONDS, (source, 0)) as connection,
        ):
            connection.sendall(request)
            while not is_last(received) and (chunk := connection.recv(65536)):
                received += chunk
        return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3})", received, re.MULTILINE)], received

    def ask(self, source: str, target: str = "/orders", *lines: str, method: str = "GET", body: bytes = b"") -> Reply:
        """Send a request with Alice's token, and return the status and what the app saw."""
        lines = (f"Authorization: Bearer {self.tokens[ALICE]}", *lines)
        statuses, received = self.send(source, raw_request(target, *lines, method=method) + body)
        found = re.search(rb"\{\"method.*\}", received)
        status = next(one for one in statuses if one != 100)
        return Reply(status, json.loads(found[0]) if found else None, received)


def is_last(received: bytes) -> bool:
    """Return True if a whole response is there after which the proxy closes: Envoy waits a second before it does."""
    head, _, body = received.lower().removeprefix(b"http/1.1 100 continue\r\n\r\n").partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    return bool(length and b"\r\nconnection: close" in head and len(body) == int(length[1]))


@dataclass(frozen=True)
class Reply:
    """A response, and the request as the app saw it, None if it did not."""

    status: int
    seen: dict[str, Any] | None
    received: bytes

    @property
    def headers(self) -> list[tuple[str, str]]:
        assert self.seen is not None
        return [(name.lower().replace("_", "-"), value) for name, value in self.seen["headers"]]


@contextmanager
def running_configured(kind: str, forward_auth: int, app: int, folder: Path) -> Iterator[ServerProcess]:
    """Run a proxy with the documented configuration."""
    port = free_port()
    made = configure_proxy(kind, listen=str(port), forward_auth=forward_auth, app=app, directory=str(folder))
    (folder / made.file).write_text(made.text)
    command = [str(BINARIES[kind]), *made.command[1:], str(folder / made.file), *MORE.get(kind, ())]
    with running_proxy(command, port, folder) as proxy:
        yield proxy


@pytest.fixture(scope="module", params=pairs_in_turn(BINARIES, (Mode("keys", "watch"), DEFAULT, AUTO)))
def place(
    request: pytest.FixtureRequest, attack_env: AttackEnv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    (kind, mode), folder = request.param, tmp_path_factory.mktemp("proxy")
    (folder / "rules.yaml").write_text(RULES)
    environ = {
        "KUBECONFIG": str(attack_env.cluster.kubeconfig_for("default/bob")),
        "PODPROOF_REJECTION_TTL": "0",
        "PODPROOF_RULES_FILE": str(folder / "rules.yaml"),
        "PODPROOF_EXEMPT": "/healthz",
        **mode.environ,
    }
    command = ["-m", "podproof", "serve", "forward-auth", "--host", "127.0.0.1", "--port", "{port}"]
    command += ["--proxy", kind, "--trusted-proxies", "127.0.0.1", "--audience", "bob"]
    with ExitStack() as stack:
        app = stack.enter_context(recording_upstream())
        forward_auth = stack.enter_context(run_server(command, folder, **environ))
        proxy = stack.enter_context(running_configured(kind, forward_auth.port, app, folder))
        tokens = {ALICE: attack_env.token, MALLORY: attack_env.mallory.token("bob")}
        yield Place(kind, proxy, forward_auth, tokens)


def test_the_app_is_told_which_pod_calls_and_does_not_see_the_token(place: Place, attack_env: AttackEnv) -> None:
    reply = place.ask(ALICE, "/orders?page=1")
    assert (reply.status, reply.seen and reply.seen["target"]) == (200, "/orders?page=1")
    told = {name: value for name, value in reply.headers if name.startswith("x-podproof-")}
    assert int(told.pop("x-podproof-expires-at")) > 0
    assert told == {
        "x-podproof-service-account": "default/alice",
        "x-podproof-pod": "default/alice-pod",
        "x-podproof-pod-uid": attack_env.alice.uid,
        "x-podproof-audience": "bob",
    }
    assert place.tokens[ALICE] not in str(reply.headers)
    assert "authorization" not in dict(reply.headers)


CREDENTIALS = {
    "none": (ALICE, 401),
    "forged": (ALICE, 401),
    "stolen": (MALLORY, 403),
    "twice": (ALICE, 400),
}


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_denial_is_the_middlewares_own(place: Place, attack_env: AttackEnv, credential: str) -> None:
    source, status = CREDENTIALS[credential]
    lines = {
        "none": [],
        "forged": [f"Authorization: Bearer {attack_env.cluster.forge(attack_env.token)}"],
        "stolen": [f"Authorization: Bearer {attack_env.token}"],
        "twice": [f"Authorization: Bearer {attack_env.token}"] * 2,
    }[credential]
    statuses, received = place.send(source, raw_request("/orders", *lines))
    assert statuses == [status]
    # nginx refuses a second Authorization header by itself.
    assert b'www-authenticate: Bearer realm="bob"' in received.replace(b"WWW-A", b"www-a").replace(
        b"Www-A", b"www-a"
    ) or (place.kind, credential) == ("nginx", "twice")


def test_an_unavailable_decision_is_a_503_with_retry_after_and_lets_nobody_in(
    place: Place, attack_env: AttackEnv
) -> None:
    without_address = attack_env.cluster.pod(f"default/starting-{place.kind}", service_account="alice", addresses=[])
    line = f"Authorization: Bearer {without_address.token('bob')}"
    statuses, received = place.send(ALICE, raw_request("/orders", line))
    assert statuses == [503]
    assert b"retry-after: 1\r\n" in received.lower() or place.kind == "envoy"  # which drops it
    assert b"method" not in received
    without_address.remove()


def test_while_forward_auth_is_away_nobody_gets_in(attack_env: AttackEnv, place: Place, tmp_path: Path) -> None:
    with recording_upstream() as app, running_configured(place.kind, free_port(), app, tmp_path) as proxy:
        away = Place(place.kind, proxy, place.forward_auth, place.tokens)
        reply = away.ask(ALICE)
    assert (reply.status >= 500, reply.seen) == (True, None)


IDENTITY_HEADERS = ("Service-Account", "Pod", "Pod-Uid", "Audience", "Expires-At")
SPELLINGS = ("X-Podproof-{}", "x-podproof-{}", "X_Podproof_{}", "X-Podproof_{}", "X_PODPROOF-{}", "X_Podproof-{}")


@pytest.mark.trap(37)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_caller_writes_an_identity_header(place: Place, spelling: str) -> None:
    for names in (IDENTITY_HEADERS, [part.replace("-", "_") for part in IDENTITY_HEADERS]):
        forged = [f"{spelling.format(name)}: forged" for name in names]
        for target, source in (("/orders", ALICE), ("/healthz", MALLORY)):
            reply = place.ask(source, target, *forged)
            assert b"forged" not in reply.received
            if reply.seen is None:
                assert place.kind == "envoy"  # which rejects underscores
                assert "_" in str(forged)
            else:
                told = [name for name, _ in reply.headers if name.startswith("x-podproof-")]
                assert len(told) == (5 if target == "/orders" else 0)


def test_no_underscore_and_behind_caddy_no_header_of_the_prefix_passes(place: Place) -> None:
    names = ["X_Podproof_Other", "X-Podproof_Other", "x_podproof-other"]
    for name in [*names, *(["X-Podproof-Other"] if place.kind == "caddy" else [])]:
        assert b"forged" not in place.ask(ALICE, "/orders", f"{name}: forged").received


@pytest.mark.trap(71)
@pytest.mark.parametrize("part", IDENTITY_HEADERS)
def test_no_caller_takes_an_identity_header_away(place: Place, part: str) -> None:
    """RFC 9110 section 7.6.1: a proxy removes what Connection names."""
    for value in (f"close, X-Podproof-{part}", f"X-Podproof-{part}"):
        reply = place.ask(ALICE, "/orders", f"Connection: {value}")
        assert reply.seen is None or len([one for one, _ in reply.headers if one.startswith("x-podproof-")]) == 5


ORIGINALS = (
    *("X-Original-URI", "X-Original-URL", "X-Forwarded-Uri", "X-Rewrite-URL", "X-Envoy-Original-Path"),
    *("X_Original_URI", "X_Forwarded_Uri", "x-original_uri"),
)
METHODS = ("X-Original-Method", "X-Forwarded-Method", "X_Original_Method", "X_Forwarded_Method")


@pytest.mark.trap(70)
@pytest.mark.parametrize("name", ORIGINALS)
def test_no_header_of_the_caller_changes_the_path_that_is_judged(place: Place, name: str) -> None:
    for lines in ([f"{name}: /orders"], [f"{name}: /orders"] * 2, [f"{name}: /healthz"]):
        assert place.ask(ALICE, "/admin", *lines).seen is None
        assert place.ask(MALLORY, "/orders", *lines).seen is None


@pytest.mark.trap(70)
@pytest.mark.parametrize("name", METHODS)
def test_no_header_of_the_caller_changes_the_method_that_is_judged(place: Place, name: str) -> None:
    assert place.ask(ALICE, "/orders", f"{name}: GET", method="DELETE").seen is None
    assert place.ask(ALICE, "/orders/7", f"{name}: GET", method="POST").seen is None


ADDRESSES = (
    *("X-Forwarded-For: {}", "X-Forwarded-For: {}, 127.0.0.1", "X_Forwarded_For: {}", "X-Real-IP: {}"),
    *("Forwarded: for={}", "X-Envoy-External-Address: {}", "True-Client-IP: {}", "Via: 1.1 {}"),
    *("X-Envoy-Internal: true\r\nX-Forwarded-For: {}", "Connection: X-Forwarded-For\r\nX-Forwarded-For: {}"),
    *("Connection: close, X-Forwarded-For, X-Forwarded-Uri, X-Forwarded-Method, Authorization\r\nX-Client-IP: {}",),
)


@pytest.mark.trap(22, 53)
@pytest.mark.parametrize("line", ADDRESSES)
def test_no_header_of_the_caller_changes_its_address(place: Place, line: str) -> None:
    reply = place.ask(MALLORY, "/orders", line.format(ALICE))
    assert (reply.status >= 400, reply.seen) == (True, None)


TARGETS = (
    *("/admin", "/admin/", "/Admin", "//admin", "/./admin", "/orders/../admin", "/orders/..", "/orders//../../admin"),
    *("/%61dmin", "/orders/%2e%2e/admin", "/orders%2f..%2fadmin", "/orders/..%2fadmin", "/orders\\..\\admin"),
    *("/orders/;/../admin", "/admin;x=1", "/admin%00", "/orders%00/../admin", "/orders/\x00", "/orders/\xe9"),
    *("/orders#/../admin", "/admin#/orders", "/orders/?x#y", "/orders/%23/../../admin", "*", "admin", "orders"),
    *("http://bob/admin", "http://bob", "bob:443", "?/orders", "/admin?/orders", "/admin?x=/../orders"),
    *("/healthz/../admin", "/healthz/", "/", "", "/orders /admin"),
)


@pytest.mark.trap(38)
@pytest.mark.parametrize("target", TARGETS)
def test_no_spelling_of_a_path_leads_past_the_rules(place: Place, target: str) -> None:
    reply = place.ask(ALICE, target)
    assert reply.seen is None or reply.seen["target"] in {"/orders/", "/healthz/"}


@pytest.mark.parametrize("target", ["/livez", "/readyz", "/metrics", "/metrics/", "/podproof", "/orders", "*"])
def test_no_path_of_the_proxy_or_of_forward_auth_itself_is_open(place: Place, target: str) -> None:
    statuses, received = place.send(ALICE, raw_request(target))
    assert b"method" not in received
    assert 200 not in statuses


def test_an_absolute_target_is_judged_by_its_path(place: Place) -> None:
    assert place.ask(ALICE, "http://evil/admin").seen is None
    reply = place.ask(ALICE, "http://evil/orders")
    assert reply.seen is None or reply.seen["target"] == "/orders"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST"])
def test_methods_that_the_rules_allow_reach_the_app(place: Place, method: str) -> None:
    reply = place.ask(ALICE, "/orders", "Content-Length: 5", method=method, body=b"hello")
    assert reply.status == 200
    if method != "HEAD":
        assert reply.seen is not None
        assert (reply.seen["method"], reply.seen["body"]) == (method, 5)


@pytest.mark.trap(68)
def test_a_body_arrives_and_its_trailers_are_no_headers(place: Place) -> None:
    forged = "".join(f"X-Podproof-{part}: forged\r\nX_Podproof_{part}: forged\r\n" for part in IDENTITY_HEADERS)
    for more in ([], ["Expect: 100-continue"], ["Trailer: X-Podproof-Pod, X-Podproof-Service-Account", "TE: trailers"]):
        body = f"5\r\nhello\r\n0\r\n{forged}Authorization: Bearer forged\r\n\r\n".encode()
        reply = place.ask(ALICE, "/orders", "Transfer-Encoding: chunked", *more, method="POST", body=body)
        assert (reply.seen and reply.seen["body"]) == 5
        assert b"forged" not in reply.received
        assert place.ask(MALLORY, "/orders", "Transfer-Encoding: chunked", *more, method="POST", body=body).seen is None


@pytest.mark.parametrize("method", ["DELETE", "PUT", "TRACE", "CONNECT", "GETX", "PROPFIND"])
def test_methods_that_the_rules_do_not_allow_do_not(place: Place, method: str) -> None:
    assert place.ask(ALICE, "/orders/7" if method != "CONNECT" else "bob:443", method=method).seen is None
    assert place.ask(MALLORY, "/orders", method=method).seen is None


def test_a_websocket_is_upgraded_for_its_caller_alone(place: Place) -> None:
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="]
    head = [f"Authorization: Bearer {place.tokens[ALICE]}", *upgrade]
    request = "".join(f"{line}\r\n" for line in ["GET /orders HTTP/1.1", "Host: bob", *head, ""]).encode()
    statuses, received = place.send(ALICE, request)
    assert (statuses, received.endswith(b"upgraded")) == ([101], True)
    denied = request.replace(b"Connection: Upgrade", b"Connection: close, Upgrade")
    statuses, received = place.send(MALLORY, denied)
    assert (statuses, b"upgraded" in received) == ([403], False)


def test_long_headers_do_not_reach_forward_auth_and_too_long_ones_reach_nobody(place: Place) -> None:
    assert place.ask(ALICE, "/orders", f"Cookie: {'x' * 12_000}").status == 200
    assert place.ask(ALICE, "/orders", f"Cookie: {'x' * 2_000_000}").seen is None


def test_an_exempt_path_has_no_caller(place: Place) -> None:
    statuses, received = place.send(MALLORY, raw_request("/healthz"))
    assert statuses == [200]
    assert b"x-podproof-" not in received.lower()


@pytest.mark.trap(69)
def test_whatever_the_proxy_asks_is_a_question_and_nobody_else_may_ask(place: Place) -> None:
    """Envoy asks by the path of the caller's request: a probe's response would be a permission."""
    for path in ("/livez", "/readyz", "/metrics", "/metrics/"):
        assert place.forward_auth.get("127.0.0.1", None, path).status in {401, 403}
        assert place.forward_auth.get("127.0.0.9", None, path).status == 200
    asked = {"X-Original-Method": "GET", "X-Original-URI": "/orders", "X-Forwarded-For": ALICE}
    asked |= {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders"}
    token = place.tokens[ALICE]
    assert place.forward_auth.get("127.0.0.1", token, "/orders", asked).status == 200
    for source in (ALICE, MALLORY):
        assert place.forward_auth.get(source, token, "/orders", asked).status == 403
    assert b"podproof_decisions_total" in place.forward_auth.get("127.0.0.9", None, "/metrics").body


def test_no_other_spelling_of_a_token_gets_in(
    place: Place, attack_env: AttackEnv, record_property: Callable[[str, object], None]
) -> None:
    spellings = hostile_tokens.other_spellings(place.tokens[ALICE].encode())
    for spelling in spellings:
        value = b"Bearer " + spelling
        statuses, received = place.send(ALICE, request_with([(b"Authorization", value)]))
        allowed = attack_env.model_allows([unfold(value)], ALICE)  # what a proxy takes off, such as a blank at the end
        assert allowed or (200 not in statuses and b"method" not in received)
    record_property("cases", len(spellings))


@given(data=st.data())
@settings(max_examples=settings().max_examples // 4)
def test_only_one_bearer_header_with_one_valid_token_gets_in(
    place: Place, attack_env: AttackEnv, leak_detector: LeakDetector, data: st.DataObject
) -> None:
    tokens = [place.tokens[ALICE], attack_env.alice.token("eve"), place.tokens[MALLORY]]
    values = data.draw(authorizations([token.encode() for token in tokens]))
    source = data.draw(st.sampled_from([ALICE, ALICE, MALLORY]))
    statuses, received = place.send(source, request_with([(b"Authorization", value) for value in values]))
    assert 200 not in statuses or attack_env.model_allows([unfold(value) for value in values], source)
    assert (b"method" in received) == (200 in statuses)


@given(headers=st.lists(other_headers(), max_size=4), source=st.sampled_from([ALICE, MALLORY, LOCAL]))
@settings(max_examples=settings().max_examples // 4)
def test_no_other_header_lets_a_request_in(place: Place, headers: list[tuple[bytes, bytes]], source: str) -> None:
    credential = (b"Authorization", b"Bearer " + place.tokens[ALICE].encode())
    statuses, received = place.send(source, request_with([credential, *headers]))
    assert (200 not in statuses and b"method" not in received) or source == ALICE


def request_with(headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [b"GET /orders HTTP/1.1", b"Host: bob", b"Connection: close", *(b": ".join(header) for header in headers)]
    return b"".join(line + b"\r\n" for line in [*lines, b""])


def test_the_log_has_the_request_that_the_proxy_received_and_no_token(
    place: Place, leak_detector: LeakDetector
) -> None:
    for token in place.tokens.values():
        leak_detector.add_secret(token)
    place.ask(MALLORY, "/orders/7?x")
    text = place.forward_auth.log.read_text(errors="backslashreplace")
    leak_detector.add_output(text)
    last = json.loads(text.splitlines()[-1])
    assert [last[key] for key in ("decision", "code", "peer", "method", "path")] == [
        *("denied", "wrong-address", MALLORY, "GET", "/orders/7")
    ]


class Asking:
    """A proxy in this process: asks forward auth about each request, with the header of the caller and its address."""

    def __init__(self, kind: str, forward_auth: ForwardAuth, record: Callable[[dict[str, Any]], None]) -> None:
        self._kind, self._forward_auth, self._record = kind, forward_auth, record

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        original = {
            "caddy": [(b"x-forwarded-method", b"GET"), (b"x-forwarded-uri", b"/")],
            "nginx": [(b"x-original-method", b"GET"), (b"x-original-uri", b"/")],
            "envoy": [],
        }[self._kind]
        peer = scope["client"]
        named = [] if peer is None else [(b"x-forwarded-for", peer[0].encode())]
        asked = {**scope, "client": (PROXY, 4711), "headers": [*scope["headers"], *original, *named]}

        async def record_and_send(message: Any) -> None:
            if message.get("status") == 200:
                [pod] = [value for name, value in message["headers"] if name == b"x-podproof-pod"]
                self._record({IDENTITY: SimpleNamespace(pod=pod.decode())})
            await send(message)

        await self._forward_auth(asked, receive, record_and_send)


PROXY = "127.0.0.50"
KINDS = ("caddy", "envoy", "nginx")


@pytest.fixture(scope="module")
def asked(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApp:
    app = attack_env.make_app(leak_detector, trusted_proxies=[PROXY])
    doors = {
        kind: Asking(kind, ForwardAuth(proxy=kind, authenticator=app.authenticator), app.record_caller)
        for kind in get_args(Proxy)
    }
    app.add_apps({}, doors)
    return app


def test_a_denial_says_what_the_middlewares_says(attack_env: AttackEnv, asked: AttackedApp) -> None:
    def said(entry_point: str, headers: list[tuple[bytes, bytes]], peer: str) -> tuple[object, ...]:
        result = asked.send(entry_point, headers, peer)
        problem = json.loads(result.body) if result.body else {}
        problem.pop("request_id", None)
        headers_said = {name: result.headers.get(name) for name in ("www-authenticate", "retry-after")}
        return result.status, problem, headers_said, result.caller, result.code, result.reason

    tokens = [attack_env.token, attack_env.alice.token("carol"), attack_env.cluster.forge(attack_env.token), "a b", ""]
    for headers in ([], *([(b"authorization", f"Bearer {token}".encode())] for token in tokens)):
        for peer in (ALICE, MALLORY):
            assert {str(said(kind, headers, peer)) for kind in KINDS} == {str(said("asgi", headers, peer))}


@settings(max_examples=settings().max_examples // 2)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_whatever_is_in_the_credential_the_reference_model_allows_the_same(
    attack_env: AttackEnv, asked: AttackedApp, data: st.DataObject, kind: str
) -> None:
    tokens = [attack_env.token, attack_env.alice.token("eve"), attack_env.cluster.forge(attack_env.token)]
    values = data.draw(authorizations([token.encode() for token in [*tokens, attack_env.mallory.token("bob")]]))
    peer = data.draw(st.sampled_from([ALICE, ALICE, MALLORY, LOCAL, None]))
    result = asked.send(kind, [(b"authorization", value) for value in values], peer)
    assert result.allowed == attack_env.model_allows(values, peer)
    assert result.status != 503


@settings(max_examples=settings().max_examples // 2)
@given(token=st.data(), kind=st.sampled_from(KINDS))
def test_no_invalid_token_gets_in(attack_env: AttackEnv, asked: AttackedApp, token: st.DataObject, kind: str) -> None:
    value = b"Bearer " + token.draw(hostile_tokens.invalid_tokens(attack_env.token))
    assert asked.send(kind, [(b"authorization", value)]).allowed <= attack_env.model_allows([value], ALICE)


@settings(max_examples=settings().max_examples // 2)
@given(headers=st.lists(other_headers()), kind=st.sampled_from(KINDS), peer=st.sampled_from([ALICE, MALLORY, None, ""]))
def test_no_other_header_allows_a_request_or_raises(
    attack_env: AttackEnv, asked: AttackedApp, headers: list[tuple[bytes, bytes]], kind: str, peer: str | None
) -> None:
    credential = (b"authorization", b"Bearer " + attack_env.token.encode())
    result = asked.send(kind, [*headers, credential], peer)
    assert attack_env.model_allows([credential[1]], peer) or not result.allowed
    assert result.status in (200, 403)
    assert asked.send(kind, headers, peer).status in (401, 403)
