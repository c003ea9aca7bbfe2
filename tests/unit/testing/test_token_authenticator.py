from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from podproof.testing import Cluster
from podproof.testing._emulator import tokens
from tests.integration.contract import Side, access

if TYPE_CHECKING:
    from tests.unit.testing.conftest import WallClock


def status(side: Side, token: str, *audiences: str) -> dict[str, Any]:
    found: dict[str, Any] = side.review(token, *(audiences or ("bob",)))["content"]["status"]
    return found


def good(side: Side, token: str, *audiences: str) -> bool:
    return bool(status(side, token, *audiences).get("authenticated", False))


def test_a_token_is_rejected_sixty_seconds_after_it_expires(cluster: Cluster, side: Side, clock: WallClock) -> None:
    clock.now = int(clock.now)
    alice = cluster.pod("default/alice")
    token = alice.token("bob", lifetime=600)
    clock.wait(660)
    assert good(side, token)
    clock.wait(11)
    assert status(side, token) == {
        "user": {},
        "error": "[invalid bearer token, service account token has expired]",
    }


def test_a_negative_lifetime_makes_an_expired_token(cluster: Cluster, side: Side) -> None:
    alice = cluster.pod("default/alice")
    assert good(side, alice.token("bob", lifetime=-50))
    assert not good(side, alice.token("bob", lifetime=-70))


def test_the_rejection_of_a_token_is_not_cached(cluster: Cluster, side: Side, clock: WallClock) -> None:
    clock.wait(61)
    token = cluster.pod("default/alice").token("bob")
    clock.wait(-61)
    assert "not valid yet" in status(side, token)["error"]
    clock.wait(1)
    assert good(side, token)


def test_the_authentication_of_a_token_is_cached_for_ten_seconds(
    cluster: Cluster, side: Side, clock: WallClock
) -> None:
    alice = cluster.pod("default/alice")
    token = alice.token(["bob", "carol"])
    assert good(side, token, "bob")
    alice.remove()
    clock.wait(9)
    assert good(side, token, "bob")
    assert not good(side, token, "carol")
    clock.wait(1)
    assert not good(side, token, "bob")


def test_trap_16_a_terminating_pods_token_lives_through_its_grace_and_sixty_seconds_more(
    cluster: Cluster, side: Side, clock: WallClock
) -> None:
    clock.now = int(clock.now)
    alice = cluster.pod("default/alice")
    token = alice.token("bob")
    alice.delete(grace=5)
    assert alice.json()["metadata"]["deletionGracePeriodSeconds"] == 5
    clock.wait(65)
    assert good(side, token)
    clock.wait(10)
    assert "invalidated" in status(side, token)["error"]


def test_trap_11_node_and_credential_are_told_from_1_30_on(clock: WallClock) -> None:
    known = {}
    for version in ("1.29", "1.30"):
        with Cluster(version=version, clock=clock) as cluster, access(str(cluster.kubeconfig)) as way:
            side = Side(way, "versions", clock.wait, str, patience=0.1)
            extra = status(side, cluster.pod("default/alice", node="node7").token("bob"))["user"]["extra"]
            known[version] = {key.partition("/")[2]: values for key, values in extra.items()}
    assert known["1.29"].keys() == {"pod-name", "pod-uid"}
    assert known["1.30"].keys() == {"pod-name", "pod-uid", "node-name", "node-uid", "credential-id"}
    assert known["1.30"]["node-name"] == ["node7"]
    assert known["1.30"]["credential-id"][0].startswith("JTI=")


def test_a_token_of_a_service_account_that_was_made_again_is_rejected(cluster: Cluster, side: Side) -> None:
    side.account("alice")
    token = side.token("alice", "bob")
    side.ask("DELETE", side.path("serviceaccounts/alice"))
    assert 'serviceaccounts "alice" not found' in status(side, token)["error"]
    side.account("alice")
    assert "does not match claim" in status(side, token)["error"]


def test_a_token_of_any_claims_can_be_signed(cluster: Cluster, side: Side) -> None:
    claims = dict(tokens.parse(cluster.pod("default/alice").token("bob")).claims)
    assert good(side, cluster.sign(claims | {"aud": "bob"}))
    assert not good(side, cluster.sign(claims | {"aud": "carol"}))
    del claims["aud"]
    assert good(side, cluster.sign(claims), cluster.issuer)
    assert not good(side, cluster.sign(claims), "bob")


@pytest.mark.parametrize("missing", ["exp", "nbf", "kubernetes.io", "sub"])
def test_a_token_without_a_claim_is_rejected(cluster: Cluster, side: Side, missing: str) -> None:
    claims = dict(tokens.parse(cluster.pod("default/alice").token("bob")).claims)
    del claims[missing]
    assert "could not be validated" in status(side, cluster.sign(claims))["error"]


def test_rbac_can_allow_impersonation_of_a_user(cluster: Cluster, side: Side) -> None:
    bob = side.bob()
    how: Any = {"bearer": bob, "headers": {"Impersonate-User": "carol"}}
    assert side.ask("GET", "/api/v1/pods", **how)["status"] == 403
    cluster.grant("default-2/bob", verbs=["impersonate"], resources=["users"])
    assert 'User "carol" cannot list' in side.ask("GET", "/api/v1/pods", **how)["content"]["message"]
    cluster.grant("carol", verbs=["list"], resources=["pods"])
    assert side.ask("GET", "/api/v1/pods", **how)["status"] == 200


JSON_VALUES: list[object] = [None, True, False, 0, 7, -1.5, "", "x", [], ["x"], [[]], {}, {"x": ["x"]}]
CLAIMS = ["sub", "aud", "exp", "iat", "nbf", "jti", "kubernetes.io"]
PRIVATE_CLAIMS = ["namespace", "pod", "serviceaccount", "node", "secret", "warnafter"]


@pytest.mark.parametrize("name", ["alg", "typ", "kid", "crit", "b64"])
def test_a_header_of_any_type_gets_a_review(cluster: Cluster, side: Side, name: str) -> None:
    header, payload, signature = cluster.pod("default/alice").token("bob").split(".")
    whole = json.loads(tokens.decode(header))
    for value in JSON_VALUES:
        changed = tokens.encode(json.dumps(whole | {name: value}).encode())
        assert not good(side, f"{changed}.{payload}.{signature}") or changed == header


@pytest.mark.parametrize("name", CLAIMS + [f"kubernetes.io/{name}" for name in PRIVATE_CLAIMS])
def test_a_claim_of_any_type_gets_a_review(cluster: Cluster, side: Side, name: str) -> None:
    claims = tokens.parse(cluster.pod("default/alice").token("bob")).claims
    private = claims["kubernetes.io"]
    for value in JSON_VALUES:
        _, within, field = name.partition("/")
        changed: dict[str, object] = {"kubernetes.io": private | {field: value}} if within else {name: value}
        assert status(side, cluster.sign({**claims, **changed}))
