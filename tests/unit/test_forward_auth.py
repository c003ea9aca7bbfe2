"""Forward auth as an ASGI app: its options, its responses, and what is logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from podproof import Rule
from podproof.errors import ConfigurationError
from podproof.forward_auth import ForwardAuth
from podproof.identity import PodIdentity
from podproof.testing import Cluster, EmulatedPod
from tests.support.fake_api import PEER, AuthenticatorFactory, token

PROXY = "10.9.0.1"
CHALLENGE = 'Bearer realm="bob"'

Ask = Callable[..., Any]
"""Returns the response of a test client."""


@pytest.fixture
def make_ask(make_authenticator: AuthenticatorFactory) -> Callable[..., Ask]:
    """Return what makes a proxy, which asks about requests, by default about Alice's."""

    def make(*, ignore_case: bool = False, **options: Any) -> Ask:
        app = ForwardAuth(
            proxy="nginx", ignore_case=ignore_case, authenticator=make_authenticator(trusted_proxies=[PROXY], **options)
        )
        client = TestClient(app, client=(PROXY, 4711))

        def ask(
            uri: str = "/orders", method: str = "GET", peer: str = PEER, *, bearer: str | None = None, **headers: str
        ) -> Any:
            credential = {} if bearer == "" else {"Authorization": f"Bearer {bearer or token()}"}
            said = {"X-Original-URI": uri, "X-Original-Method": method, "X-Forwarded-For": peer}
            return client.get("/", headers={**credential, **said, **headers})

        return ask

    return make


def told(response: Any) -> Mapping[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("x-podproof-")}


def test_a_caller_is_named_in_headers(make_ask: Callable[..., Ask]) -> None:
    response = make_ask()()
    assert (response.status_code, response.content, response.headers["cache-control"]) == (200, b"", "no-store")
    assert told(response) == {
        "x-podproof-service-account": "default/alice",
        "x-podproof-pod": "default/alice-pod",
        "x-podproof-pod-uid": "pod-uid",
        "x-podproof-audience": "bob",
        "x-podproof-expires-at": "1800003600",
    }


@pytest.mark.parametrize(
    ("asked", "status", "challenge"),
    [
        ({"bearer": ""}, 401, CHALLENGE),
        ({"bearer": "junk"}, 401, f'{CHALLENGE}, error="invalid_token"'),
        ({"peer": "10.1.2.4"}, 403, f'{CHALLENGE}, error="insufficient_scope"'),
        ({"uri": "http://bob/orders"}, 403, f'{CHALLENGE}, error="insufficient_scope"'),
        ({"Authorization": "Bearer a b"}, 400, f'{CHALLENGE}, error="invalid_request"'),
    ],
)
def test_a_denial_is_the_middlewares(
    make_ask: Callable[..., Ask], asked: dict[str, str], status: int, challenge: str
) -> None:
    response = make_ask()(**asked)
    assert (response.status_code, response.headers["www-authenticate"]) == (status, challenge)
    assert response.json()["status"] == status
    assert told(response) == {}


def test_rules_are_about_the_original_method_and_path(make_ask: Callable[..., Ask]) -> None:
    ask = make_ask(rules=[Rule("/orders", methods=["GET"], allow=["default/alice"])])
    assert [ask(uri).status_code for uri in ("/orders", "/orders?x=/admin", "/orders/")] == [200] * 3
    for uri in ("/", "/admin?x=/orders", "/orders/../admin", "/%6frders", "//orders", "/orders/7"):
        assert ask(uri).status_code == 403
    assert ask(method="POST").status_code == 403


def test_a_rule_that_the_other_slash_escapes_does_not_count(make_ask: Callable[..., Ask]) -> None:
    """Many routers of other languages take /admin and /admin/ for one."""
    ask = make_ask(rules=[Rule("/admin/*", allow=["default/root"]), Rule("/*", allow=["default/alice"])])
    assert [ask(uri).status_code for uri in ("/orders", "/orders/", "/admin", "/admin/", "/admin/x")] == [
        *(200, 200, 403, 403, 403)
    ]


def test_where_case_is_ignored_a_path_has_to_be_allowed_in_lower_case_too(make_ask: Callable[..., Ask]) -> None:
    rules = [
        Rule("/admin", allow=["default/root"]),
        Rule("/admin/*", allow=["default/root"]),
        Rule("/*", allow=["default/alice"]),
    ]
    spellings = ("/Admin", "/ADMIN/", "/aDmin/x", "/admin")
    ask, ask_ignoring = make_ask(rules=rules), make_ask(ignore_case=True, rules=rules, exempt=["/health"])
    assert [ask(uri).status_code for uri in spellings] == [200, 200, 200, 403]
    assert [ask_ignoring(uri).status_code for uri in spellings] == [403] * 4
    assert [ask_ignoring(uri).status_code for uri in ("/orders", "/Orders/A")] == [200, 200]
    assert told(ask_ignoring("/health")) == {}
    assert told(ask_ignoring("/Health")) != {}


@pytest.mark.parametrize(
    "options", [{"exempt": ["/orders"]}, {"optional": True}, {"enforce": False}], ids=lambda one: next(iter(one))
)
def test_an_anonymous_request_passes_without_a_caller(
    make_ask: Callable[..., Ask], options: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "podproof.audit"):
        response = make_ask(**options)(bearer="")
    assert (response.status_code, told(response)) == (200, {})
    [record] = [record for record in caplog.records if record.name == "podproof.audit"]
    assert (record.__dict__["path"], record.__dict__["peer"]) == ("/orders", PEER)


@pytest.mark.parametrize(("peer", "decision"), [(PEER, "allowed"), ("10.1.2.4", "denied")])
def test_the_log_has_the_original_request_and_its_peer(
    make_ask: Callable[..., Ask], caplog: pytest.LogCaptureFixture, peer: str, decision: str
) -> None:
    with caplog.at_level(logging.INFO, "podproof.audit"):
        make_ask()("/orders?secret=1", "PATCH", peer)
    [record] = [record.__dict__ for record in caplog.records if record.name == "podproof.audit"]
    assert [record[key] for key in ("decision", "method", "path", "peer")] == [decision, "PATCH", "/orders", peer]


def test_a_rejected_tokens_record_has_the_peer_that_the_proxy_saw(
    make_ask: Callable[..., Ask], caplog: pytest.LogCaptureFixture
) -> None:
    assert make_ask()(bearer="junk").status_code == 401
    [record] = [record.__dict__ for record in caplog.records if record.name == "podproof.audit"]
    assert record["peer"] == PEER


class AnyName:
    """An authenticator of one's own that names callers as it likes."""

    def __init__(self, identity: PodIdentity) -> None:
        self._identity = identity

    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        return self._identity


@pytest.mark.parametrize("uid", ["a\r\nX-Podproof-Pod: kube-system/root", "a b", "é", "", "\x00"])
def test_a_name_that_cannot_be_in_a_header_is_denied(
    uid: str, make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture
) -> None:
    identity = make_authenticator().authenticate(token(), PEER)
    named = AnyName(replace(identity, pod=replace(identity.pod, uid=uid)))
    app = ForwardAuth(proxy="envoy", audience="bob", trusted_proxies=[PROXY], authenticator=named)
    client = TestClient(app, client=(PROXY, 4711))
    response = client.get("/orders", headers={"Authorization": "Bearer x", "X-Forwarded-For": PEER})
    assert (response.status_code, told(response)) == (403, {})
    assert "X-Podproof-Pod-Uid cannot be in a header" in caplog.text
    app.close()


def test_each_request_of_a_trusted_proxy_is_a_question(make_authenticator: AuthenticatorFactory) -> None:
    app = ForwardAuth(proxy="envoy", authenticator=make_authenticator(trusted_proxies=["10.9.0.0/24"]))
    for client in ((PROXY, 1), ("::ffff:10.9.0.7", 1)):
        assert app.is_asked_by({"type": "http", "client": client})
    for other in (None, ("10.1.2.3", 1), ("", 1), ("testclient", 1)):
        assert not app.is_asked_by({"type": "http", "client": other})


INVALID: Mapping[str, dict[str, Any]] = {
    "no proxy was given, nor PODPROOF_FORWARD_AUTH_PROXY: expected one of caddy, envoy, nginx": {"proxy": None},
    "invalid proxy 'apache': expected one of": {"proxy": "apache"},
    "no trusted_proxies were given": {"trusted_proxies": []},
    "other_credentials cannot be 'pass' here": {"other_credentials": "pass"},
    "keep_authorization cannot be True here": {"keep_authorization": True},
    "unknown option": {"no_such_option": 1},
    "invalid ignore_case 'si': expected true or false": {"ignore_case": "si"},
}


@pytest.mark.parametrize("message", INVALID)
def test_an_invalid_option_stops_the_start(message: str, podproof_cluster: Cluster) -> None:
    given: dict[str, Any] = {"proxy": "nginx", "audience": "bob", "trusted_proxies": [PROXY], **INVALID[message]}
    with pytest.raises(ConfigurationError, match=message):
        ForwardAuth(**given)


def test_options_are_read_from_the_environment_and_its_lifespan_ends_its_threads(
    podproof_cluster: Cluster, podproof_caller: EmulatedPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"FORWARD_AUTH_PROXY": "caddy", "FORWARD_AUTH_IGNORE_CASE": "true", "FORWARD_AUTH_SERVICE_HOST": "10.96.0.9"}
    for name, value in {**own, "TRUSTED_PROXIES": PROXY, "AUDIENCE": "bob"}.items():
        monkeypatch.setenv(f"PODPROOF_{name}", value)
    with TestClient(ForwardAuth(), client=(PROXY, 4711)) as client:
        said = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/", "X-Forwarded-For": podproof_caller.peer[0]}
        assert client.get("/", headers={**said, **podproof_caller.headers("bob")}).status_code == 200


def test_an_unknown_variable_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODPROOF_FORWARD_AUTH_IGNORECASE", "true")
    with pytest.raises(ConfigurationError, match="unknown option PODPROOF_FORWARD_AUTH_IGNORECASE: expected one of"):
        ForwardAuth(proxy="caddy", audience="bob", trusted_proxies=[PROXY])


def test_a_proxy_asks_by_http(make_authenticator: AuthenticatorFactory) -> None:
    app = ForwardAuth(proxy="envoy", authenticator=make_authenticator(trusted_proxies=[PROXY]))

    async def nothing(*_: object) -> Any:
        """Be no server."""

    with pytest.raises(RuntimeError, match="unexpected ASGI scope type 'websocket'"):
        anyio.run(app, {"type": "websocket"}, nothing, nothing)
    app.close()
