"""A denied caller sees the status, and nothing that distinguishes one reason from another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from podproof import errors
from podproof._cache.review_threads import MAX_PENDING_PER_THREAD
from podproof.errors import Forbidden, InvalidToken, PodAuthError, Unavailable
from podproof.testing._emulator.tokens import parse
from tests.security import hostile_tokens
from tests.security.attacked_app import ALICE, ENTRY_POINTS, MALLORY, AttackedApp, AttackEnv, AttackResult
from tests.support.leak_detector import LeakDetector
from tests.support.server_process import TIMEOUT_SECONDS


@pytest.fixture(scope="module")
def tokens(attack_env: AttackEnv) -> Mapping[str, str]:
    """Return a token for each error code that a token or its pod causes."""
    cluster = attack_env.cluster

    def of(name: str, **changes: Any) -> str:
        pod = cluster.pod(f"default/{name}", service_account=name, addresses=[ALICE])
        token = pod.token("bob")
        pod.update(**changes)
        return token

    return {
        "malformed-token": "x.y.z",
        "wrong-audience": attack_env.alice.token("eve"),
        "wrong-issuer": cluster.sign({**parse(attack_env.token).claims, "iss": "https://elsewhere.example"}),
        "expired": attack_env.alice.token("bob", lifetime=-120),
        "not-pod-bound": cluster.service_account("default/alice").token("bob"),
        "token-review-failed": cluster.forge(attack_env.token),
        "pod-gone": of("gone"),
        "pod-finished": of("finished", phase="Failed"),
        "service-account-mismatch": of("impostor", service_account="alice"),
        "host-network": of("host", host_network=True),
        "not-allowed": of("stranger"),
    }


@pytest.fixture(scope="module")
def app(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApp:
    return attack_env.make_app(
        leak_detector, issuers=[attack_env.cluster.issuer], allow=["default/[!s]*"], rejection_ttl=0
    )


@pytest.fixture
def env_without_pod(attack_env: AttackEnv, tokens: Mapping[str, str]) -> Iterator[AttackEnv]:
    """Return the environment while another pod has the name `gone`."""

    def recreate(pod: dict[str, Any]) -> dict[str, Any]:
        if pod["metadata"].get("name") == "gone":
            pod["metadata"]["uid"] = "another"
        return pod

    attack_env.cluster.mutate("pods", recreate)
    yield attack_env
    attack_env.cluster.heal()


def without_id(result: AttackResult) -> tuple[int, list[tuple[str, str]], bytes]:
    body, replaced = re.subn(rb'"request_id": "[0-9a-f]{16}"', b"", result.body)
    assert replaced == 1
    return result.status, sorted(result.headers.items()), body


def codes(family: type[PodAuthError]) -> set[str]:
    """Return the codes of a family's errors; those of a token exchange are not a middleware's."""
    children = [one for one in family.__subclasses__() if one.__module__ == errors.__name__]
    return {family.code, *(code for one in children for code in codes(one))}


def count_different(results: list[AttackResult]) -> int:
    """Return how many different responses there are, request ids apart."""
    return len({repr(without_id(result)) for result in results})


def test_all_rejected_tokens_get_the_same_response(
    env_without_pod: AttackEnv, app: AttackedApp, leak_detector: LeakDetector, tokens: Mapping[str, str]
) -> None:
    by_keys = env_without_pod.make_app(leak_detector, by_keys=True)
    results = [app.send_token(entry_point, token) for entry_point in ENTRY_POINTS for token in tokens.values()]
    forged = hostile_tokens.forge_under_the_known_key(env_without_pod.token)
    results += [by_keys.send_token(entry_point, forged) for entry_point in ENTRY_POINTS]
    rejected = [result for result in results if result.status == 401]
    assert {result.code for result in rejected} == codes(InvalidToken) - {InvalidToken.code}
    assert count_different(rejected) == 1


def test_a_cached_rejection_gets_the_same_response(
    attack_env: AttackEnv, leak_detector: LeakDetector, tokens: Mapping[str, str]
) -> None:
    app = attack_env.make_app(leak_detector)
    assert (
        count_different(
            [app.send_token(entry_point, tokens["token-review-failed"]) for entry_point in ENTRY_POINTS * 2]
        )
        == 1
    )
    assert [
        result.code
        for result in [app.send_token(entry_point, tokens["token-review-failed"]) for entry_point in ENTRY_POINTS]
    ] == ["token-review-failed"] * 3


def test_all_reasons_for_403_get_the_same_response(
    attack_env: AttackEnv, app: AttackedApp, tokens: Mapping[str, str]
) -> None:
    results = [
        app.send_token(entry_point, token, peer)
        for entry_point in ENTRY_POINTS
        for token, peer in (
            (attack_env.token, MALLORY),
            (attack_env.token, None),
            (tokens["host-network"], ALICE),
            (tokens["not-allowed"], ALICE),
        )
    ]
    assert {result.code for result in results} == codes(Forbidden) - {Forbidden.code}
    assert count_different(results) == 1


def test_all_malformed_headers_get_the_same_response(attack_env: AttackEnv, app: AttackedApp) -> None:
    valid = b"Bearer " + attack_env.token.encode()
    malformed = [
        b"",
        b"Bearer",
        b"Bearer ",
        b"\xff",
        valid + b"=",
        valid + b" ",
        valid.replace(b" ", b"  "),
        valid * 20,
    ]
    results = [
        app.send(entry_point, [(b"authorization", value)]) for entry_point in ENTRY_POINTS for value in malformed
    ]
    results += [app.send(entry_point, [(b"authorization", valid)] * 2) for entry_point in ENTRY_POINTS]
    assert {(result.status, result.code) for result in results} == {(400, "malformed-credential")}
    assert count_different(results) == 1


def test_all_reasons_for_503_get_the_same_response(attack_env: AttackEnv, leak_detector: LeakDetector) -> None:
    app = attack_env.make_app(leak_detector, timeout=0.5)
    results = []
    for fault in ("refuse", "hang", "html", 500, 403):
        attack_env.cluster.fail(fault)
        results += [app.send_token(entry_point, attack_env.token) for entry_point in ENTRY_POINTS]
        attack_env.cluster.heal()
    # The share of one address, half of the places, stays full until the API server responds: the timeout is far away.
    busy_app = attack_env.make_app(leak_detector, max_reviews=1, timeout=60)
    attack_env.cluster.fail("hang")
    tokens = [attack_env.alice.token("bob") for _ in range(MAX_PENDING_PER_THREAD // 2)]
    queued = [busy_app.authenticator.start(token, ALICE) for token in tokens]
    results += [busy_app.send_token(entry_point, attack_env.token) for entry_point in ENTRY_POINTS]
    attack_env.cluster.heal()
    assert all(review.result(TIMEOUT_SECONDS) for review in queued)
    assert {(result.status, result.code) for result in results} == {(503, code) for code in codes(Unavailable)}
    assert count_different(results) == 1
