"""Tokens that are verified by their issuers' keys: who is asked instead, and what the claims have to be."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.jws import MAX_BRACKETS
from podproof._authentication.key_set import KeySet
from podproof._authentication.key_source import APIServerKeys
from podproof._authentication.signing_keys import SigningKeyVerifier
from podproof._authentication.token_review import CREDENTIAL_ID, NODE_NAME, NODE_UID, TokenReviewVerifier
from podproof._token.jwt import read_claims
from podproof.errors import (
    Expired,
    MalformedToken,
    NotPodBound,
    PodAuthError,
    SignatureInvalid,
    WrongAudience,
)
from podproof.identity import ServiceAccount
from podproof.testing import Cluster
from tests.support.fake_api import ALICE, NOW, Clock
from tests.support.key_verifier import ISSUER, PRIVATE, REVIEWED, FakeReview, FakeSource, Verifying, token_with
from tests.support.signed_tokens import (
    ALGORITHMS,
    jwk_of,
    jwks,
    make_key,
    signed_token,
)


@pytest.fixture
def verifying(time: Clock) -> Verifying:
    return Verifying(time)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_a_pod_is_verified_without_a_review(verifying: Verifying, algorithm: str) -> None:
    verifying.source.document = jwks(jwk_of(algorithm))
    reviewed = verifying.verify(signed_token(algorithm))
    assert reviewed.service_account == ServiceAccount("default", "alice", "account-uid")
    assert (reviewed.pod_name, reviewed.pod_uid, reviewed.audience) == ("alice-pod", "pod-uid", "bob")
    assert reviewed.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
    assert (reviewed.credential_id, verifying.review.reviews) == (None, 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_signature_of_another_key_under_a_known_kid_is_denied_at_once(verifying: Verifying, algorithm: str) -> None:
    verifying.source.document = jwks(jwk_of(algorithm))
    with pytest.raises(SignatureInvalid) as raised:
        verifying.verify(signed_token(algorithm, make_key(algorithm, "mallory")))
    assert (raised.value.code, raised.value.status) == ("invalid-signature", 401)
    assert (verifying.review.reviews, verifying.source.fetches) == (0, 1)


@pytest.mark.parametrize("version", ["1.20", "1.29", "1.36"])
@pytest.mark.parametrize("node_uid", [True, False])
def test_what_is_verified_equals_the_token_review_of_the_same_token(version: str, node_uid: bool) -> None:
    with Cluster(version=version) as cluster:
        client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))
        key_set = KeySet(APIServerKeys(client))
        review = FakeReview()
        by_keys = SigningKeyVerifier({cluster.issuer: key_set}, ["carol", "bob"], review=review)
        by_review = TokenReviewVerifier(client, ["carol", "bob"])
        pod = cluster.pod("default/alice-pod", service_account="alice")
        deadline = key_set._monotonic() + 5
        for audience in ("bob", ["bob", "carol"]):
            token = pod.token(audience)
            if not node_uid:
                token = cluster.sign(without_node_uid(token))
            assert by_keys.verify(token, deadline) == by_review.verify(token, deadline)
        assert review.reviews == 0
        client.close()


def without_node_uid(token: str) -> dict[str, Any]:
    """Return the claims of a token as they are where the node object is not there yet."""
    claims = dict(read_claims(token))
    private = dict(claims["kubernetes.io"])
    if "node" in private:
        private["node"] = {"name": private["node"]["name"]}
    return claims | {"kubernetes.io": private}


def test_the_extra_has_what_newer_api_servers_write_into_tokens(verifying: Verifying) -> None:
    private = PRIVATE | {"node": {"name": "node1", "uid": "node-uid"}}
    reviewed = verifying.verify(token_with(jti="1", **{"kubernetes.io": private}))
    assert reviewed.credential_id == "JTI=1"
    assert [reviewed.extra[name] for name in (CREDENTIAL_ID, NODE_NAME, NODE_UID)] == [
        ("JTI=1",),
        ("node1",),
        ("node-uid",),
    ]


@pytest.mark.trap(66)
@pytest.mark.parametrize(
    "token",
    [
        signed_token(header={"kid": None}),
        signed_token(header={"kid": "another"}),
        signed_token(claims=ALICE | {"iss": "https://another"}),
    ],
    ids=["no kid", "unknown kid", "another issuer"],
)
def test_a_token_whose_key_is_not_known_is_reviewed_and_never_denied(verifying: Verifying, token: str) -> None:
    assert verifying.is_reviewed(token)
    assert verifying.review.deadline == verifying.time() + 5


def test_each_issuer_has_keys_of_its_own(verifying: Verifying) -> None:
    other = FakeSource(jwks(jwk_of("ES384")))
    sets = {ISSUER: verifying.key_set, "https://other": KeySet(other, monotonic=verifying.time)}
    verifier = SigningKeyVerifier(sets, ["bob"], review=verifying.review, now=verifying.time)
    deadline = verifying.time() + 5
    theirs = ALICE | {"iss": "https://other"}
    assert verifier.verify(signed_token(), deadline) is not REVIEWED
    assert verifier.verify(signed_token("ES384", claims=theirs), deadline) is not REVIEWED
    assert verifier.verify(signed_token("ES384"), deadline) is REVIEWED
    assert verifier.verify(signed_token(claims=theirs), deadline) is REVIEWED


def test_issuers_may_share_a_key_set(verifying: Verifying) -> None:
    sets = {ISSUER: verifying.key_set, "https://old": verifying.key_set}
    verifier = SigningKeyVerifier(sets, ["bob"], review=verifying.review, now=verifying.time)
    for issuer in sets:
        assert verifier.verify(signed_token(claims=ALICE | {"iss": issuer}), verifying.time() + 5) is not REVIEWED
    assert verifying.source.fetches == 1


def test_an_algorithm_that_the_key_does_not_allow_is_denied(verifying: Verifying) -> None:
    verifying.source.document = jwks(jwk_of("RS256", alg="RS512"))
    assert verifying.verify(signed_token("RS512", header={"kid": "RS256"})) is not REVIEWED
    with pytest.raises(SignatureInvalid):
        verifying.verify(signed_token("RS256"))


def test_keys_of_the_same_kid_are_tried_one_after_the_other(verifying: Verifying) -> None:
    mallory = make_key("ES256", "mallory")
    verifying.source.document = jwks(
        jwk_of("RS256", kid="ES256"), jwk_of("ES256", mallory), jwk_of("ES384", kid="ES256"), jwk_of("ES256")
    )
    assert verifying.verify(signed_token()) is not REVIEWED
    assert verifying.verify(signed_token(key=mallory)) is not REVIEWED
    assert verifying.verify(signed_token("ES384", header={"kid": "ES256"})) is not REVIEWED
    with pytest.raises(SignatureInvalid):
        verifying.verify(signed_token(key=make_key("ES256", "eve")))


def test_clocks_may_differ_by_a_minute_both_ways(verifying: Verifying) -> None:
    for name, value in (("exp", NOW - 60), ("nbf", NOW + 60), ("iat", NOW + 60)):
        assert verifying.verify(token_with(**{name: value})) is not REVIEWED
    for name, value in (("exp", NOW - 61), ("nbf", NOW + 61), ("iat", NOW + 61)):
        with pytest.raises(Expired):
            verifying.verify(token_with(**{name: value}))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_a_token_without_one_of_its_times_is_denied(verifying: Verifying, name: str) -> None:
    with pytest.raises(MalformedToken, match=f"{name} claim is not a time"):
        verifying.verify(token_with(**{name: None}))


def test_the_node_of_a_token_may_have_no_uid(verifying: Verifying) -> None:
    reviewed = verifying.verify(token_with(**{"kubernetes.io": PRIVATE | {"node": {"name": "node1"}}}))
    assert reviewed.extra[NODE_NAME] == ("node1",)
    assert NODE_UID not in reviewed.extra


@pytest.mark.parametrize("aud", ["bob", ["eve", "bob"]])
def test_the_audience_is_a_text_or_a_list(verifying: Verifying, aud: object) -> None:
    assert verifying.verify(token_with(aud=aud)).audience == "bob"


@pytest.mark.parametrize("aud", [None, [], ["eve"], "BOB"])
def test_a_token_for_another_audience_is_denied(verifying: Verifying, aud: object) -> None:
    with pytest.raises(WrongAudience):
        verifying.verify(token_with(aud=aud))


def test_an_audience_beside_something_else_than_a_text_is_denied(verifying: Verifying) -> None:
    with pytest.raises(MalformedToken, match="aud claim"):
        verifying.verify(token_with(aud=["bob", 7]))


@pytest.mark.trap(12)
@pytest.mark.parametrize(
    "pod", [None, "alice-pod", {"name": "A", "uid": "x"}, {"name": "../x", "uid": "x"}, {"name": "a", "uid": "x y"}]
)
def test_a_token_without_a_pod_is_denied(verifying: Verifying, pod: object) -> None:
    with pytest.raises(NotPodBound):
        verifying.verify(token_with(**{"kubernetes.io": PRIVATE | {"pod": pod}}))


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "system:serviceaccount:default:bob"},
        {"sub": None},
        {"kubernetes.io": PRIVATE | {"namespace": "kube-system"}},
        {"kubernetes.io": PRIVATE | {"namespace": "Default"}, "sub": "system:serviceaccount:Default:alice"},
        {"kubernetes.io": PRIVATE | {"serviceaccount": "alice"}},
        {"kubernetes.io": PRIVATE | {"serviceaccount": {"name": "alice"}}},
        {"kubernetes.io": PRIVATE | {"pod": {"name": "alice-pod"}}},
        {"kubernetes.io": PRIVATE | {"node": "node1"}},
        {"kubernetes.io": PRIVATE | {"node": {"name": "node1", "uid": 7}}},
        {"jti": 7},
        {"iss": None},
    ],
)
def test_a_claim_that_is_not_as_the_api_server_writes_it_is_denied(
    verifying: Verifying, changes: dict[str, Any]
) -> None:
    with pytest.raises(MalformedToken):
        verifying.verify(token_with(**changes))


@pytest.mark.parametrize(
    "token",
    [
        "a.b",
        signed_token(header={"more": "a" * 9000}),
        signed_token(header=b'{"alg":"ES256","alg":"ES256","kid":"ES256"}'),
        signed_token(header=b"[]"),
        signed_token(header=b"\xff"),
        signed_token(header={"crit": ["exp"]}),
        signed_token(header={"b64": True}),
        signed_token(header={"alg": None}),
        signed_token(header={"kid": 7}),
        signed_token(claims=json.dumps(ALICE).encode()[:-1] + b',"aud":["bob"]}'),
        signed_token(claims=json.dumps(ALICE).encode()[:-1] + b',"more":NaN}'),
        signed_token(claims=ALICE | {"more": [[]] * MAX_BRACKETS}),
    ],
    ids=[  # not the tokens themselves, whose signatures are random
        *("two segments", "long header", "alg twice", "header is a list", "header is not UTF-8", "crit", "b64"),
        *("no alg", "kid is a number", "aud twice", "NaN", "too many brackets"),
    ],
)
def test_a_token_in_another_form_is_denied_before_a_key_is_looked_for(verifying: Verifying, token: str) -> None:
    with pytest.raises(MalformedToken):
        verifying.verify(token)
    assert (verifying.source.fetches, verifying.review.reviews) == (0, 0)


@pytest.mark.trap(33)
def test_no_error_and_no_repr_holds_a_part_of_the_token(verifying: Verifying) -> None:
    token = signed_token(key=make_key("ES256", "mallory"))
    with pytest.raises(PodAuthError) as raised:
        verifying.verify(token)
    parts = token.split(".")
    assert not any(part in f"{raised.value!r} {verifying!r}" for part in parts)
