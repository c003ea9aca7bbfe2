"""POST /token: what is issued, and each error of RFC 6749 section 5.2 and RFC 8693 section 2.2.2."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import jwt
import pytest
from starlette.testclient import TestClient

from podproof._authentication.pods import FoundPod, PodLookup
from podproof.errors import NonceNeeded, Unavailable
from podproof.exchange import Grant
from podproof.exchange.denied import error_of_denial
from podproof.exchange.token_request import (
    ACCESS_TOKEN_TYPE,
    CLIENT_CREDENTIALS,
    JWT_BEARER,
    JWT_TYPE,
    MAX_BODY,
    TOKEN_EXCHANGE,
)
from podproof.identity import Pod
from tests.support.dpop_proofs import key_thumbprint, make_proof
from tests.support.exchange_client import ISSUER, ExchangeClient, client_assertion, write_keys
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, FakeAPI, pod, review, reviewed_user, token
from tests.unit.exchange.conftest import MakeExchange

ALICE = "system:serviceaccount:default:alice"
ELSEWHERE = "10.9.9.9"
FORM = "application/x-www-form-urlencoded"


def error_of(response: Any) -> tuple[int, str]:
    assert response.headers["cache-control"] == "no-store"
    return response.status_code, response.json()["error"]


def test_a_pod_trades_its_projected_token(exchange: ExchangeClient) -> None:
    response = exchange.exchange()
    body = response.json()
    issued = body.pop("access_token")
    assert body == {
        "token_type": "Bearer",
        "expires_in": 300,
        "issued_token_type": ACCESS_TOKEN_TYPE,
        "scope": "read write",
    }
    assert response.headers["cache-control"] == "no-store"
    claims = exchange.claims(issued)
    assert len(claims.pop("jti")) == 22
    assert claims == {
        "iss": ISSUER,
        "sub": ALICE,
        "aud": "ledger",
        "exp": NOW + 300,
        "iat": NOW,
        "client_id": ALICE,
        "scope": "read write",
        "kubernetes.io": {
            "namespace": "default",
            "pod": {"name": "alice-pod", "uid": "pod-uid"},
            "serviceaccount": {"name": "alice", "uid": "account-uid"},
        },
    }
    header = jwt.get_unverified_header(issued)
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")


def test_the_node_is_named_where_the_api_server_says_it(fake_api: FakeAPI, exchange: ExchangeClient) -> None:
    extra = review()["status"]["user"]["extra"]
    node = {"authentication.kubernetes.io/node-name": ["n"], "authentication.kubernetes.io/node-uid": ["u"]}
    fake_api.review = reviewed_user(extra=extra | node)
    assert exchange.claims(exchange.issue())["kubernetes.io"]["node"] == {"name": "n", "uid": "u"}


GRANT_TYPES: dict[str, Callable[[], dict[str, Any]]] = {
    "exchange": lambda: {"grant_type": TOKEN_EXCHANGE, "subject_token": token(), "subject_token_type": JWT_TYPE},
    "exchange as an actor": lambda: {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": token(),
        "subject_token_type": JWT_TYPE,
        "actor_token": token(),
        "actor_token_type": JWT_TYPE,
    },
    "exchange as a client": lambda: {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": token(),
        "subject_token_type": JWT_TYPE,
        **client_assertion(token()),
    },
    "jwt-bearer": lambda: {"grant_type": JWT_BEARER, "assertion": token()},
    "jwt-bearer as a client": lambda: {"grant_type": JWT_BEARER, "assertion": token(), **client_assertion(token())},
    "client assertion": lambda: {"grant_type": CLIENT_CREDENTIALS, **client_assertion(token())},
}


@pytest.mark.parametrize("way", GRANT_TYPES)
def test_each_way_to_present_a_projected_token_gets_the_same(exchange: ExchangeClient, way: str) -> None:
    response = exchange.post("/token", data=GRANT_TYPES[way]() | {"audience": "ledger"})
    claims = exchange.claims(response.json()["access_token"])
    assert (claims["sub"], claims["aud"], "act" in claims) == (ALICE, "ledger", False)
    assert ("issued_token_type" in response.json()) == way.startswith("exchange")


def test_what_is_asked_for_is_what_is_issued(make_exchange: MakeExchange) -> None:
    ledger = Grant(audience="https://ledger/", allow=["*/*"], scopes=["read", "write"])
    exchange = make_exchange(grants=[ledger, Grant(audience="books", allow=["*/*"])])
    response = exchange.exchange(audience=None, resource="https://ledger/", scope="read", requested_token_type=JWT_TYPE)
    assert (response.json()["scope"], response.json()["issued_token_type"]) == ("read", JWT_TYPE)
    assert exchange.claims(response.json()["access_token"], "https://ledger/")["scope"] == "read"
    books = exchange.exchange(audience="books")
    assert "scope" not in books.json()
    assert "scope" not in exchange.claims(books.json()["access_token"], "books")


def test_an_audience_can_be_left_out_where_there_is_only_one(
    make_exchange: MakeExchange, exchange: ExchangeClient
) -> None:
    assert exchange.claims(exchange.issue(audience=None))["aud"] == "ledger"
    several = make_exchange(grants=[Grant(audience=name, allow=["*/*"]) for name in ("ledger", "books")])
    assert error_of(several.exchange(audience=None)) == (400, "invalid_target")


def test_an_issued_token_does_not_outlive_the_projected_one(exchange: ExchangeClient) -> None:
    response = exchange.exchange(subject_token=token(exp=NOW + 100.5))
    assert response.json()["expires_in"] == 100
    assert exchange.claims(response.json()["access_token"])["exp"] == NOW + 100


def test_a_projected_token_that_has_just_expired_gets_none(exchange: ExchangeClient) -> None:
    assert error_of(exchange.exchange(subject_token=token(exp=NOW - 1))) == (400, "invalid_request")


@pytest.mark.parametrize("lifetime", [30, 900])
def test_the_lifetime_is_an_option(make_exchange: MakeExchange, lifetime: int) -> None:
    assert make_exchange(lifetime=lifetime).exchange().json()["expires_in"] == lifetime


# What is wrong with the projected token or its caller, and how the API server responds.
REJECTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "for another audience": (token(aud=["carol"]), {}),
    "expired": (token(exp=NOW - 3600), {}),
    "not bound to a pod": (token(**{"kubernetes.io": None}), {}),
    "no JSON Web Token": ("a.b.c", {}),
    "with a blank": (f"{token()} x", {}),
    "not Latin-1": ("\N{SNOWMAN}", {}),
    "from another address": (token(), {"peer": ELSEWHERE}),
    "not authenticated": (token(), {"review": review(authenticated=False)}),
    "its pod is gone": (token(), {"pod": None}),
}
SOURCES: dict[str, tuple[Callable[[str], dict[str, Any]], tuple[int, str]]] = {
    "subject_token": (
        lambda one: {"grant_type": TOKEN_EXCHANGE, "subject_token": one, "subject_token_type": JWT_TYPE},
        (400, "invalid_request"),  # RFC 8693 section 2.2.2
    ),
    "actor_token": (
        lambda one: GRANT_TYPES["exchange"]() | {"actor_token": one, "actor_token_type": JWT_TYPE},
        (400, "invalid_request"),
    ),
    "assertion": (lambda one: {"grant_type": JWT_BEARER, "assertion": one}, (400, "invalid_grant")),
    "client_assertion": (
        lambda one: {"grant_type": CLIENT_CREDENTIALS, **client_assertion(one)},
        (401, "invalid_client"),
    ),
}


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_token_that_is_rejected_gets_the_error_of_its_parameter_and_no_reason(
    exchange: ExchangeClient, fake_api: FakeAPI, rejection: str
) -> None:
    rejected, world = REJECTIONS[rejection]
    peer = world.get("peer", PEER)
    fake_api.review = world.get("review", fake_api.review)
    fake_api.pod = world.get("pod", fake_api.pod)
    for source, (form, expected) in SOURCES.items():
        response = exchange.post("/token", data=form(rejected) | {"audience": "ledger"}, peer=peer)
        assert error_of(response) == expected
        assert response.json()["error_description"] == f"The {source} is not accepted here."


MALFORMED: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "no grant type": ({"grant_type": None}, (400, "invalid_request")),
    "an empty parameter": ({"grant_type": ""}, (400, "invalid_request")),
    "a repeated parameter": ({"subject_token": ["a.b.c", "a.b.c"]}, (400, "invalid_request")),
    "another grant type": ({"grant_type": "password"}, (400, "unsupported_grant_type")),
    "no subject token": ({"subject_token": None}, (400, "invalid_request")),
    "no subject token type": ({"subject_token_type": None}, (400, "invalid_request")),
    "another subject token type": ({"subject_token_type": "urn:x"}, (400, "invalid_request")),
    "a pod's token that is called an ID token": (
        {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
        (400, "invalid_request"),
    ),
    "an actor token without its type": ({"actor_token": "a.b.c"}, (400, "invalid_request")),
    "an actor token type without the token": ({"actor_token_type": JWT_TYPE}, (400, "invalid_request")),
    "another actor token type": ({"actor_token": "a.b.c", "actor_token_type": "urn:x"}, (400, "invalid_request")),
    "another requested token type": ({"requested_token_type": "urn:x"}, (400, "invalid_request")),
    "a client assertion without its type": ({"client_assertion": "a.b.c"}, (400, "invalid_request")),
    "another client assertion type": (
        {"client_assertion": "a.b.c", "client_assertion_type": "urn:x"},
        (401, "invalid_client"),
    ),
    "an actor that is not the client": (
        {"actor_token": "a.b.c", "actor_token_type": JWT_TYPE, **client_assertion("d.e.f")},
        (400, "invalid_request"),
    ),
    "no client assertion": ({"grant_type": CLIENT_CREDENTIALS}, (401, "invalid_client")),
    "no assertion": ({"grant_type": JWT_BEARER}, (400, "invalid_request")),
    "a client secret": ({"client_secret": "s"}, (401, "invalid_client")),
    "the client_id of another": ({"client_id": "bob"}, (401, "invalid_client")),
    "an audience that is not granted": ({"audience": "books"}, (400, "invalid_target")),
    "two audiences": ({"audience": ["ledger", "books"]}, (400, "invalid_target")),
    "an audience with a blank": ({"audience": "led ger"}, (400, "invalid_target")),
    "an audience that is too long": ({"audience": "x" * 1025}, (400, "invalid_target")),
    "a resource with a fragment": ({"resource": "https://ledger/#x"}, (400, "invalid_target")),
    "a resource that is no URI": ({"resource": "ledger"}, (400, "invalid_target")),
    "a scope that is not granted": ({"scope": "read admin"}, (400, "invalid_scope")),
    "a scope with two blanks": ({"scope": "read  write"}, (400, "invalid_scope")),
    "a scope with quotes": ({"scope": '"read"'}, (400, "invalid_scope")),
    "a scope that is too long": ({"scope": "x" * 1025}, (400, "invalid_scope")),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_each_malformed_request_has_its_error(exchange: ExchangeClient, case: str) -> None:
    changes, expected = MALFORMED[case]
    assert error_of(exchange.exchange(**changes)) == expected


BODIES: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "JSON": ({"json": {}}, (400, "invalid_request")),
    "no content type": ({"content": b"grant_type=x"}, (400, "invalid_request")),
    "a multipart form": ({"files": {"grant_type": b"x"}}, (400, "invalid_request")),
    "bytes that are not ASCII": ({"content": b"\xff=1", "headers": {"content-type": FORM}}, (400, "invalid_request")),
    "escapes that are not UTF-8": ({"content": b"a=%ff", "headers": {"content-type": FORM}}, (400, "invalid_request")),
    "too many parameters": (
        {"content": b"&".join(b"%d=1" % number for number in range(99)), "headers": {"content-type": FORM}},
        (400, "invalid_request"),
    ),
    "nothing": ({"content": b"", "headers": {"content-type": FORM}}, (400, "invalid_request")),
    "too much": ({"content": b"a" * (MAX_BODY + 1), "headers": {"content-type": FORM}}, (413, "invalid_request")),
    "too much in parts": (
        {"content": iter([b"a" * 40_000] * 2), "headers": {"content-type": FORM}},
        (413, "invalid_request"),
    ),
    "parameters in the URL": ({"params": {"grant_type": "x"}, "data": {"a": "b"}}, (400, "invalid_request")),
}


@pytest.mark.parametrize("case", BODIES)
def test_each_body_that_is_no_form_has_its_error(exchange: ExchangeClient, case: str) -> None:
    more, expected = BODIES[case]
    assert error_of(exchange.post("/token", **more)) == expected


@pytest.mark.parametrize(("value", "scheme"), [("Basic eDp5", "Basic"), ("bearer x", "bearer"), ('"', "Bearer")])
def test_a_client_that_authenticates_by_the_header_is_told_so_in_its_scheme(
    exchange: ExchangeClient, value: str, scheme: str
) -> None:
    response = exchange.exchange(headers={"Authorization": value})
    assert error_of(response) == (401, "invalid_client")
    assert response.headers["www-authenticate"] == f'{scheme} realm="token"'


def test_the_client_id_of_the_caller_is_accepted(exchange: ExchangeClient) -> None:
    assert exchange.exchange(client_id=ALICE).status_code == 200


def test_a_proof_that_is_not_good_is_not_ignored(exchange: ExchangeClient) -> None:
    assert error_of(exchange.exchange(headers={"DPoP": "a.b.c"})) == (400, "invalid_dpop_proof")


class TestProofs:
    """A proof of possession (RFC 9449 section 5) that comes with the request binds the token to its key."""

    URI = f"{ISSUER}/token"

    def ask(self, exchange: ExchangeClient, uri: str = URI, **claims: Any) -> Any:
        proof = make_proof({"htm": "POST", "htu": uri, **claims})
        return exchange.exchange(headers={"DPoP": proof})

    def test_the_token_is_bound_to_the_key(self, exchange: ExchangeClient) -> None:
        response = self.ask(exchange)
        assert response.json()["token_type"] == "DPoP"
        claims = exchange.claims(response.json()["access_token"])
        assert claims["cnf"] == {"jkt": key_thumbprint()}
        assert exchange.introspect(response.json()["access_token"]).json()["token_type"] == "DPoP"

    def test_a_proof_counts_once_and_for_this_endpoint(self, exchange: ExchangeClient) -> None:
        assert self.ask(exchange).status_code == 200
        assert error_of(self.ask(exchange)) == (400, "invalid_dpop_proof")
        assert error_of(self.ask(exchange, "https://evil/token", jti="2")) == (400, "invalid_dpop_proof")

    def test_an_exchange_may_have_other_urls(self, make_exchange: MakeExchange) -> None:
        exchange = make_exchange(urls=["http://bridge"])
        assert self.ask(exchange, "http://bridge/token").status_code == 200
        assert self.ask(exchange, jti="2").status_code == 200

    def test_a_proof_can_be_required(self, make_exchange: MakeExchange) -> None:
        exchange = make_exchange(dpop="required")
        assert error_of(exchange.exchange()) == (400, "invalid_dpop_proof")
        assert self.ask(exchange).status_code == 200

    @pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
    def test_where_nonces_are_wanted_each_response_brings_one(
        self, make_exchange: MakeExchange, tmp_path: Path, algorithm: str
    ) -> None:
        keys = write_keys(tmp_path / algorithm, algorithm=algorithm)
        exchange, replica = (make_exchange(nonce=True, keys=keys) for _ in range(2))
        first = self.ask(exchange)
        assert error_of(first) == (400, "use_dpop_nonce")
        nonce = first.headers["dpop-nonce"]
        for number, one in enumerate((exchange, replica)):
            response = self.ask(one, jti=f"n-{number}", nonce=nonce)
            assert (response.status_code, response.headers["dpop-nonce"]) == (200, nonce)
        assert error_of(self.ask(exchange, jti="a", nonce="another")) == (400, "use_dpop_nonce")
        exchange.clock.passes(600)
        late = self.ask(exchange, jti="b", nonce=nonce, iat=exchange.clock())
        assert (error_of(late), late.headers["dpop-nonce"] != nonce) == ((400, "use_dpop_nonce"), True)
        assert exchange.exchange().status_code == 200  # a bearer token needs no proof

    def test_another_keys_nonces_are_not_accepted(self, make_exchange: MakeExchange, tmp_path: Path) -> None:
        one, other = (make_exchange(nonce=True, keys=write_keys(tmp_path / name, name)) for name in ("1", "2"))
        nonce = self.ask(one).headers["dpop-nonce"]
        assert error_of(self.ask(other, jti="2", nonce=nonce)) == (400, "use_dpop_nonce")

    def test_a_nonce_that_is_needed_comes_with_the_error(self) -> None:
        error = error_of_denial(NonceNeeded("no nonce", "n-1"), "subject_token")
        assert (error.status, error.error, error.headers) == (400, "use_dpop_nonce", {"DPoP-Nonce": "n-1"})


def test_only_post_asks_for_a_token(exchange: ExchangeClient) -> None:
    assert exchange.post("/nowhere").status_code == 404
    assert TestClient(exchange.app).get("/token").status_code == 405


def test_a_caller_that_is_not_in_the_allow_list_is_unauthorized(make_exchange: MakeExchange) -> None:
    exchange = make_exchange({"allow": ["default/carol"]})
    assert error_of(exchange.exchange()) == (400, "unauthorized_client")


def test_nothing_is_issued_while_the_api_server_cannot_be_asked(exchange: ExchangeClient, fake_api: FakeAPI) -> None:
    fake_api.review = Unavailable("down")
    response = exchange.exchange()
    assert error_of(response) == (503, "temporarily_unavailable")
    assert response.headers["retry-after"] == "1"


def test_nor_to_a_known_caller_whose_pod_cannot_be_read_any_more(exchange: ExchangeClient, fake_api: FakeAPI) -> None:
    assert exchange.exchange().status_code == 200
    assert exchange.exchange().status_code == 200
    reads = fake_api.reads
    exchange.clock.passes(1)
    fake_api.pod = Unavailable("down")
    assert error_of(exchange.exchange()) == (503, "temporarily_unavailable")
    fake_api.pod = None
    assert error_of(exchange.exchange()) == (400, "invalid_request")
    fake_api.pod = pod()
    assert exchange.exchange().status_code == 200
    assert fake_api.reads > reads


def test_a_pod_that_a_fresh_view_shows_is_not_read_again(
    exchange: ExchangeClient, fake_api: FakeAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exchange.exchange().status_code == 200
    reads = fake_api.reads
    exchange.clock.passes(1)
    shown = FoundPod(Pod("default", "alice-pod", "pod-uid"), fresh_until=exchange.clock())
    monkeypatch.setattr(PodLookup, "last_known", lambda *_: shown)
    assert exchange.exchange().status_code == 200
    assert fake_api.reads == reads


def test_nor_to_a_caller_that_is_only_known_from_before_an_outage(
    make_exchange: MakeExchange, fake_api: FakeAPI, make_authenticator: AuthenticatorFactory
) -> None:
    exchange = make_exchange()
    known = make_authenticator.made[-1].get_cached
    with pytest.MonkeyPatch.context() as patch:
        assert exchange.exchange().status_code == 200
        stale = replace(known(token(), PEER), stale=True)  # type: ignore[type-var]
        patch.setattr(make_authenticator.made[-1], "get_cached", lambda *_: stale)
        assert error_of(exchange.exchange()) == (503, "temporarily_unavailable")


class TestReportOnly:
    """enforce=False: who would be denied by the allow-list is logged, and gets a token; an unknown caller gets none."""

    def test_a_caller_that_is_not_allowed_gets_its_token(
        self, make_exchange: MakeExchange, caplog: pytest.LogCaptureFixture
    ) -> None:
        exchange = make_exchange({"allow": ["default/carol"], "enforce": False})
        assert exchange.exchange().status_code == 200
        assert "would deny: not-allowed" in caplog.text

    @pytest.mark.parametrize("changes", [{"subject_token": token(aud=["carol"])}, {"peer": ELSEWHERE}])
    def test_a_caller_that_is_not_known_gets_none(self, make_exchange: MakeExchange, changes: dict[str, Any]) -> None:
        exchange = make_exchange({"enforce": False})
        assert error_of(exchange.exchange(**changes)) == (400, "invalid_request")

    def test_grants_are_enforced(self, make_exchange: MakeExchange) -> None:
        assert error_of(make_exchange({"enforce": False}).exchange(audience="books")) == (400, "invalid_target")


def test_a_decision_is_logged_with_its_reason_and_without_a_token(
    exchange: ExchangeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issued = exchange.issue(scope="read")
    denied = exchange.exchange(audience="books")
    malformed = exchange.exchange(grant_type="password")
    records = [record for record in caplog.records if record.name == "podproof.audit"]
    allowed, issuing, refused, misread = (vars(record) for record in records)
    assert (allowed["decision"], allowed["service_account"], allowed["path"]) == ("allowed", "alice", "/token")
    assert (issuing["decision"], issuing["issued_for"], issuing["scope"]) == ("issued", "ledger", "read")
    assert issuing["token_id"] == exchange.claims(issued)["jti"]
    assert (refused["code"], refused["pod"], refused["status"]) == ("target-not-granted", "alice-pod", 400)
    assert refused["request_id"] == denied.json()["request_id"]
    assert (misread["code"], misread["request_id"]) == ("malformed-request", malformed.json()["request_id"])
    for secret in (token(), issued, issued.rpartition(".")[2], "BEGIN PRIVATE KEY"):
        assert secret not in caplog.text


def run_asgi(exchange: ExchangeClient, receive: Callable[[], Any], scope: dict[str, Any] | None = None) -> list[Any]:
    """Return what the app sends for a request whose body `receive` brings."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", FORM.encode())]
    http = {"type": "http", "method": "POST", "path": "/token", "query_string": b"", "headers": headers}
    anyio.run(exchange.app, http | (scope or {}), receive, send)
    return sent


def test_a_body_that_takes_too_long_is_given_up(make_exchange: MakeExchange) -> None:
    start, body = run_asgi(make_exchange({"timeout": 0.05}), anyio.sleep_forever)
    assert (start["status"], b"took too long" in body["body"]) == (408, True)


def test_a_body_that_breaks_off_is_not_read(exchange: ExchangeClient) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    start, body = run_asgi(exchange, receive)
    assert (start["status"], b"incomplete" in body["body"]) == (400, True)


def test_the_startup_check_begins_with_the_lifespan(exchange: ExchangeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(exchange.app._pipeline, "begin", lambda: begun.append(True))
    with TestClient(exchange.app):
        assert begun == [True]


def test_a_caller_does_not_wait_for_its_pod_longer_than_its_timeout(
    make_exchange: MakeExchange, fake_api: FakeAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = make_exchange({"timeout": 0.05})
    assert exchange.exchange().status_code == 200
    exchange.clock.passes(1)
    released = Event()
    monkeypatch.setattr(fake_api, "read_pod", lambda *_: released.wait())
    assert error_of(exchange.exchange()) == (503, "temporarily_unavailable")
    released.set()
