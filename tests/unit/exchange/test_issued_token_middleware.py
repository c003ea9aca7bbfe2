"""`IssuedTokenMiddleware`: who gets in with a token of an exchange, with nobody to ask."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from podproof import ConfigurationError, PodIdentity, current_caller
from podproof._request.incoming import IncomingRequest
from podproof._token.token_hash import token_hash
from podproof.exchange.asgi import IssuedTokenMiddleware as ASGIMiddleware
from podproof.exchange.dpop import DPoPVerifier
from podproof.exchange.issued_tokens import IssuedTokenOptions
from podproof.exchange.possession import Possession
from podproof.exchange.wsgi import IssuedTokenMiddleware as WSGIMiddleware
from tests.support.dpop_proofs import key_thumbprint, make_proof
from tests.support.issued_tokens import AUDIENCE, ISSUER, POD, issued_token, published_keys
from tests.support.middleware_client import ClientResponse, MiddlewareClient
from tests.support.signed_tokens import jwk_of, make_key, signed_token

BOUND: dict[str, Any] = {"cnf": {"jkt": key_thumbprint()}}
Call = Callable[..., ClientResponse]


class Ledger:
    """A service that takes issued tokens; `callers` are those that it was called by."""

    def __init__(self, kind: str, **options: object) -> None:
        self.callers: list[PodIdentity | None] = []
        self._client = MiddlewareClient(
            kind,
            None,
            lambda: self.callers.append(current_caller()),
            middlewares=(WSGIMiddleware, ASGIMiddleware),
            **{"issuer": ISSUER, "audience": AUDIENCE, **options},
        )

    def get(
        self, token: str, *proofs: str, scheme: str = "Bearer", path: str = "/", header: str = "Authorization"
    ) -> ClientResponse:
        return self._client(path, headers={header: f"{scheme} {token}", "DPoP": ",".join(proofs)})


@pytest.fixture(params=["wsgi", "asgi"])
def make_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Ledger]:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(published_keys()))

    def make(**options: object) -> Ledger:
        return Ledger(request.param, **{"jwks": str(file), "dpop": "optional", **options})

    return make


@pytest.fixture
def ledger(make_ledger: Callable[..., Ledger]) -> Ledger:
    return make_ledger()


def proof_for(token: str, path: str = "/", **claims: Any) -> str:
    return make_proof({"htu": f"http://bob{path}", "ath": token_hash(token), "iat": time.time(), **claims})


@pytest.mark.parametrize("key", ["ES256", "EdDSA"])
def test_the_caller_is_the_pod_that_the_token_was_issued_to(ledger: Ledger, key: str) -> None:
    token = issued_token(key=key, scope="read write", act={"sub": "user-7"})
    assert ledger.get(token).status == 200
    (caller,) = ledger.callers
    assert caller is not None
    assert (str(caller), str(caller.pod), caller.audience) == (str(caller), "default/alice-pod", AUDIENCE)
    assert str(caller.service_account) == "default/alice"
    assert caller.pod.uid == "pod-uid"
    assert caller.groups == ()
    assert {name: caller.extra[name] for name in ("sub", "client_id", "scope", "act.sub")} == {
        "sub": ("system:serviceaccount:default:alice",),
        "client_id": ("system:serviceaccount:default:alice",),
        "scope": ("read", "write"),
        "act.sub": ("user-7",),
    }


NOW = int(time.time())
REJECTED: Mapping[str, Callable[[], str]] = {
    "of another issuer": lambda: issued_token(iss="https://mallory"),
    "of no issuer": lambda: issued_token(iss=None),
    "for another audience": lambda: issued_token(aud="alice"),
    "for no audience": lambda: issued_token(aud=None),
    "expired": lambda: issued_token(exp=NOW - 100),
    "without exp": lambda: issued_token(exp=None),
    "from the future": lambda: issued_token(iat=NOW + 1000),
    "without iat": lambda: issued_token(iat=None),
    "without sub": lambda: issued_token(sub=None),
    "without client_id": lambda: issued_token(client_id=None),
    "that names no pod": lambda: issued_token(pod=None),
    "that names half a pod": lambda: issued_token(pod={**POD, "pod": {"name": "alice-pod"}}),
    "that names no account": lambda: issued_token(pod={**POD, "serviceaccount": None}),
    "with another account's form": lambda: issued_token(pod={**POD, "namespace": "a/b"}),
    "bound in another way": lambda: issued_token(cnf={"x5t#S256": "abc"}),
    "bound to no text": lambda: issued_token(cnf={"jkt": 7}),
    "with a scope that is no text": lambda: issued_token(scope=["read"]),
    "with an actor that is no object": lambda: issued_token(act="user-7"),
    "of another type": lambda: issued_token(header={"typ": "JWT"}),
    "of no type": lambda: issued_token(header={"typ": None}),
    "of the type of a proof": lambda: issued_token(header={"typ": "dpop+jwt"}),
    "signed with another key": lambda: issued_token(name="mallory"),
    "that names another key": lambda: issued_token(header={"kid": "mallory"}),
    "that names no key": lambda: issued_token(header={"kid": None}),
    "that brings its key": lambda: issued_token(
        name="mallory", header={"jwk": jwk_of("ES256", make_key("ES256", "m"))}
    ),
    "of the algorithm none": lambda: issued_token(header={"alg": "none"}),
    "that is a pod's own": lambda: signed_token("ES256"),
    "that is junk": lambda: "junk",
}


@pytest.mark.parametrize("kind", REJECTED)
def test_a_token_is_rejected(ledger: Ledger, kind: str) -> None:
    response = ledger.get(REJECTED[kind]())
    assert (response.status, ledger.callers) == (401, [])
    assert json.loads(response.body)["detail"] == "The token is not accepted here."


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_type_is_a_media_type(ledger: Ledger, kind: str) -> None:
    assert ledger.get(issued_token(header={"typ": kind})).status == 200


def test_a_bound_token_gets_in_with_a_proof_each_time(ledger: Ledger) -> None:
    token = issued_token(**BOUND)
    for number in range(3):
        assert ledger.get(token, proof_for(token, jti=str(number)), scheme="DPoP").status == 200
    assert len(ledger.callers) == 3


def test_a_bound_token_may_come_in_a_header_of_its_own(make_ledger: Callable[..., Ledger]) -> None:
    ledger, token = make_ledger(header="X-Pod-Authorization"), issued_token(**BOUND)
    for scheme, status in (("DPoP", 200), ("Bearer", 401)):
        response = ledger.get(token, proof_for(token, jti=scheme), scheme=scheme, header="X-Pod-Authorization")
        assert response.status == status
    assert ledger.get(token, proof_for(token, jti="3"), scheme="DPoP").status == 401
    assert len(ledger.callers) == 1


@pytest.mark.parametrize("scheme", ["DPoP", "dpop", "DPOP"])
def test_a_scheme_has_no_case(ledger: Ledger, scheme: str) -> None:
    token = issued_token(**BOUND)
    assert ledger.get(token, proof_for(token), scheme=scheme).status == 200


def test_a_bound_token_without_its_proof_gets_nobody_in(ledger: Ledger) -> None:
    token = issued_token(**BOUND)
    assert ledger.get(token, proof_for(token), scheme="DPoP").status == 200
    del ledger.callers[:]
    stolen = [
        ledger.get(token),
        ledger.get(token, scheme="DPoP"),
        ledger.get(token, proof_for(token), scheme="DPoP"),
        ledger.get(token, proof_for(token, jti="2")),
        ledger.get(token, proof_for(token, path="/other", jti="2"), scheme="DPoP"),
        ledger.get(token, proof_for("another", jti="2"), scheme="DPoP"),
        ledger.get(token, proof_for(token, jti="2", htm="POST"), scheme="DPoP"),
        ledger.get(token, proof_for(token, jti="2", iat=time.time() - 600), scheme="DPoP"),
        ledger.get(
            token,
            make_proof({"htu": "http://bob/", "ath": token_hash(token), "iat": time.time()}, name="mallory"),
            scheme="DPoP",
        ),
        ledger.get(token, proof_for(token, jti="2"), proof_for(token, jti="3"), scheme="DPoP"),
    ]
    assert [response.status for response in stolen] == [401] * len(stolen)
    assert ledger.callers == []
    assert {response.headers["Www-Authenticate"] for response in stolen} == {
        'DPoP realm="ledger", error="invalid_dpop_proof", algs="ES256 EdDSA", '
        'Bearer realm="ledger", error="invalid_dpop_proof"'
    }


def test_a_token_that_is_bound_to_no_key_is_no_dpop_token(ledger: Ledger) -> None:
    token = issued_token()
    assert ledger.get(token, proof_for(token), scheme="DPoP").status == 401


def test_where_proofs_are_required_no_bearer_token_gets_in(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger(dpop="required")
    bearer, bound = issued_token(), issued_token(**BOUND)
    denied = []
    for _ in range(2):  # the second time the token is known
        denied += [ledger.get(bearer), ledger.get(bearer, proof_for(bearer), scheme="DPoP"), ledger.get(bound)]
    assert [response.status for response in denied] == [401] * 6
    assert ledger.callers == []
    assert {response.headers["Www-Authenticate"].split()[0] for response in denied} == {"DPoP"}
    assert ledger.get(bound, proof_for(bound), scheme="DPoP").status == 200


def test_a_proof_is_for_one_of_the_origins(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger(origins=["https://ledger.example", "https://ledger:8443"])
    token = issued_token(**BOUND)
    expected = {"https://ledger.example/a": 200, "https://LEDGER:8443/a": 200, "http://bob/a": 401}
    for number, (url, status) in enumerate(expected.items()):
        proof = proof_for(token, htu=url, jti=str(number))
        assert ledger.get(token, proof, scheme="DPoP", path="/a").status == status


@pytest.mark.parametrize("path", ["/a%20b", "/%C3%A9", "/a+b;c=d", "/a?q=1"])
def test_a_proof_is_for_the_path_as_it_was_sent(ledger: Ledger, path: str) -> None:
    token = issued_token(**BOUND)
    assert ledger.get(token, proof_for(token, path=path), scheme="DPoP", path=path).status == 200


def test_where_nonces_are_wanted_the_response_brings_one(make_ledger: Callable[..., Ledger]) -> None:
    ledger = make_ledger(nonce=True)
    token = issued_token(**BOUND)
    first = ledger.get(token, proof_for(token), scheme="DPoP")
    assert first.status == 401
    assert 'error="use_dpop_nonce"' in first.headers["Www-Authenticate"]
    proof = proof_for(token, nonce=first.headers["Dpop-Nonce"], jti="2")
    assert ledger.get(token, proof, scheme="DPoP").status == 200


def test_allow_and_rules_hold_for_issued_tokens_too(make_ledger: Callable[..., Ledger]) -> None:
    assert make_ledger(allow=["batch/*"]).get(issued_token()).status == 403
    assert make_ledger(allow=["default/alice"]).get(issued_token()).status == 200


def test_an_unknown_key_is_503_while_the_keys_cannot_be_read(make_ledger: Callable[..., Ledger]) -> None:
    assert make_ledger(jwks="/nowhere/jwks.json").get(issued_token()).status == 503


def test_a_caller_that_needs_no_proof_is_known(ledger: Ledger) -> None:
    token = issued_token()
    assert [ledger.get(token).status for _ in range(3)] == [200, 200, 200]


def test_forgeries_stop_nobody(ledger: Ledger) -> None:
    for number in range(200):
        assert ledger.get(issued_token(name="mallory", jti=str(number))).status == 401
    assert ledger.get(issued_token()).status == 200


@pytest.mark.parametrize("make", [WSGIMiddleware, ASGIMiddleware])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"issuer": ""}, "no issuer"),
        ({"dpop": "no"}, "invalid dpop"),
        ({"origins": ["ledger"]}, "invalid origin"),
        ({"origins": ["https://ledger/a"]}, "invalid origin"),
        ({"verify": "keys"}, "verify has no meaning"),
        ({"authenticator": object()}, "authenticator has no meaning"),
        ({"issuer": "http://bridge", "jwks": None}, "invalid URL of signing keys"),
        ({"audience": ""}, "audience"),
    ],
)
def test_a_wrong_option_stops_the_start(make: Any, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(lambda *_: None, **{"issuer": ISSUER, "audience": AUDIENCE, "jwks": "/keys.json", **options})


@pytest.mark.parametrize("make", [WSGIMiddleware, ASGIMiddleware])
def test_help_shows_the_options_of_issued_tokens(make: Any) -> None:
    parameters = inspect.signature(make).parameters
    own = [*inspect.get_annotations(IssuedTokenOptions)]
    assert [*parameters][: 1 + len(own)] == ["app", *own]
    assert {"audience", "allow", "exempt", "timeout"} <= {*parameters}
    assert not {"verify", "source_address", "authenticator"} & {*parameters}
    assert parameters["issuer"].default is inspect.Parameter.empty
    assert (parameters["dpop"].default, parameters["introspect"].default) == ("required", False)


@pytest.mark.parametrize("target", ["/a", "http://bob/a"])
def test_a_target_in_absolute_form_is_its_path(target: str) -> None:
    request = IncomingRequest("GET", "/a", target, "/a", None, origin="http://bob")
    assert Possession(DPoPVerifier(), required=True)._uris(request) == ["http://bob/a"]
