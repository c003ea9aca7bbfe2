"""Delegation: a pod acts for a user, whose token an issuer of users' tokens has signed (RFC 8693 section 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from podproof.exchange import Grant
from podproof.exchange.pairwise import reverse_subject
from podproof.exchange.token_request import ID_TOKEN_TYPE, JWT_BEARER, JWT_TYPE, TOKEN_EXCHANGE
from tests.support.exchange_client import SECRET, ExchangeClient, client_assertion
from tests.support.fake_api import NOW, token
from tests.support.signed_tokens import jwk_of, jwks, make_key, signed_token
from tests.unit.exchange.conftest import MakeExchange

IDP = "https://idp.example"
ALICE = "system:serviceaccount:default:alice"
USER = {"iss": IDP, "sub": "ulla", "aud": "bob", "iat": NOW, "exp": NOW + 200}
GRANTS = [Grant(audience="ledger", allow=["default/alice"], users=[IDP]), Grant(audience="books", allow=["*/*"])]


def user_token(**changes: object) -> str:
    """Return a user's token with other claims; None removes one."""
    return signed_token(claims={name: value for name, value in (USER | changes).items() if value is not None})


@pytest.fixture
def idp(tmp_path: Path) -> Mapping[str, str]:
    file = tmp_path / "idp.json"
    file.write_text(json.dumps(jwks(jwk_of("ES256"))))
    return {IDP: str(file)}


@pytest.fixture
def exchange(make_exchange: MakeExchange, idp: Mapping[str, str]) -> ExchangeClient:
    return make_exchange(grants=GRANTS, user_issuers=idp)


def act_for(user: str, **changes: Any) -> dict[str, Any]:
    """Return the parameters by which Alice's pod asks for a token about a user."""
    return {
        "subject_token": user,
        "subject_token_type": ID_TOKEN_TYPE,
        "actor_token": token(),
        "actor_token_type": JWT_TYPE,
    } | changes


def test_a_pod_acts_for_a_user(exchange: ExchangeClient) -> None:
    response = exchange.exchange(**act_for(user_token()))
    claims = exchange.claims(response.json()["access_token"])
    assert (claims["sub"], claims["act"], claims["client_id"]) == ("ulla", {"sub": ALICE}, ALICE)
    assert claims["kubernetes.io"]["pod"]["name"] == "alice-pod"
    assert response.json()["expires_in"] == 200  # the user's token ends before


@pytest.mark.parametrize("way", ["as a client", "by jwt-bearer"])
def test_the_pod_may_present_its_own_token_as_a_client(exchange: ExchangeClient, way: str) -> None:
    form = (
        {"grant_type": TOKEN_EXCHANGE, "subject_token": user_token(), "subject_token_type": JWT_TYPE}
        if way == "as a client"
        else {"grant_type": JWT_BEARER, "assertion": user_token()}
    )
    response = exchange.post("/token", data=form | client_assertion(token()) | {"audience": "ledger"})
    claims = exchange.claims(response.json()["access_token"])
    assert (claims["sub"], claims["act"]) == ("ulla", {"sub": ALICE})


def test_the_subject_of_a_user_is_pairwise_too(make_exchange: MakeExchange, idp: Mapping[str, str]) -> None:
    exchange = make_exchange(grants=GRANTS, user_issuers=idp, subject="pairwise")
    claims = exchange.claims(exchange.issue(**act_for(user_token())))
    assert "ulla" not in str(claims)
    secrets = {"1.pairwise": SECRET}
    user, actor = (reverse_subject(secrets, one, "ledger") for one in (claims["sub"], claims["act"]["sub"]))
    assert user is not None
    assert actor is not None
    assert (user.kind, user.identifier) == ("user", f"{IDP} ulla")
    assert (actor.kind, actor.identifier) == ("service-account", ALICE)


REJECTED: dict[str, str] = {
    "of an unknown issuer": user_token(iss="https://other.example"),
    "signed by another key": signed_token("ES256", make_key("ES256", "another"), claims=USER),
    "by a key of another name": signed_token(header={"kid": "other"}, claims=USER),
    "for another audience": user_token(aud=["carol"]),
    "for no audience": user_token(aud=None),
    "expired": user_token(exp=NOW),
    "without an end": user_token(exp=None),
    "not valid yet": user_token(nbf=NOW + 3600),
    "issued in the future": user_token(iat=NOW + 3600),
    "without a subject": user_token(sub=None),
    "with a subject that is too long": user_token(sub="x" * 256),
    "with control characters": user_token(sub="a\nb"),
    "that looks like a service account": user_token(sub=ALICE),
    "of a pod": user_token(**{"kubernetes.io": {}}),
    "for another actor": user_token(may_act={"sub": "system:serviceaccount:default:bob"}),
    "for an actor of another kind": user_token(may_act={"sub": ALICE, "iss": "https://other.example"}),
    "for an actor that is no object": user_token(may_act=ALICE),
    "no token": "a.b.c",
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_users_token_that_is_not_good_is_rejected(exchange: ExchangeClient, case: str) -> None:
    response = exchange.exchange(**act_for(REJECTED[case]))
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert response.json()["error_description"] == "The subject_token is not accepted here."


def test_a_token_that_names_this_actor_is_accepted(exchange: ExchangeClient) -> None:
    assert exchange.exchange(**act_for(user_token(may_act={"sub": ALICE}))).status_code == 200


def test_to_act_for_a_user_has_to_be_granted(exchange: ExchangeClient) -> None:
    response = exchange.exchange(**act_for(user_token(), audience="books"))
    assert (response.status_code, response.json()["error"]) == (400, "invalid_target")


def test_an_actor_that_is_not_good_is_rejected_first(exchange: ExchangeClient) -> None:
    response = exchange.exchange(**act_for("a.b.c", actor_token=token(aud=["carol"])))
    assert response.json()["error_description"] == "The actor_token is not accepted here."
