"""A denied caller sees the status, and nothing that distinguishes one reason from another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from podproof import errors
from podproof._cache.review_threads import MAX_PENDING_PER_THREAD
from podproof.errors import (
    Forbidden,
    InvalidToken,
    OriginalUnknown,
    PodAuthError,
    SignatureInvalid,
    TokenInactive,
    Unavailable,
)
from podproof.testing import EmulatedPod
from podproof.testing._emulator.tokens import parse
from tests.security import hostile_tokens
from tests.security.attacked_app import ALICE, ENTRY_POINTS, MALLORY, AttackedApp, AttackEnv, AttackResult
from tests.support.leak_detector import LeakDetector
from tests.support.modes import MODES, Mode
from tests.support.server_process import TIMEOUT_SECONDS


@pytest.fixture(scope="module")
def tokens(attack_env: AttackEnv) -> Iterator[Mapping[str, str]]:
    """Give a token for each error code that a token or its pod causes."""
    cluster = attack_env.cluster
    pods: list[EmulatedPod] = []

    def of(name: str, **changes: Any) -> str:
        pod = cluster.pod(f"default/{name}", service_account=name, addresses=[ALICE])
        pods.append(pod)
        token = pod.token("bob")
        pod.update(**changes)
        return token

    yield {
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
    for pod in pods:  # the environment is that of other tests, too
        pod.remove()


Apps = Mapping[Mode, AttackedApp]


@pytest.fixture
def apps(attack_env: AttackEnv, leak_detector: LeakDetector, tokens: Mapping[str, str]) -> Apps:
    """Return an app in each mode, which has seen no pod yet: `tokens` are made before."""
    assert tokens
    options: dict[str, Any] = {"issuers": [attack_env.cluster.issuer], "allow": ["default/[!s]*"], "rejection_ttl": 0}
    return {mode: attack_env.make_app(leak_detector, mode=mode, **options) for mode in MODES}


@pytest.fixture
def env_without_pod(attack_env: AttackEnv, tokens: Mapping[str, str]) -> Iterator[AttackEnv]:
    """Return the environment while another pod has the name `gone`."""

    def recreate(sent: dict[str, Any]) -> dict[str, Any]:
        pod = sent.get("object", sent)  # of an event of a watch
        if pod.get("metadata", {}).get("name") == "gone":
            pod["metadata"]["uid"] = "another"
        return sent

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


def test_all_rejected_tokens_get_the_same_response_in_each_mode(
    env_without_pod: AttackEnv, apps: Apps, tokens: Mapping[str, str]
) -> None:
    forged = hostile_tokens.forge_under_the_known_key(env_without_pod.token)
    rejected = []
    for mode, app in apps.items():
        tried = [*tokens.values(), forged]
        results = [app.send_token(entry_point, token) for entry_point in ENTRY_POINTS for token in tried]
        rejected += [result for result in results if result.status == 401]
        others = {InvalidToken.code, TokenInactive.code, *([SignatureInvalid.code] if mode.verify == "review" else [])}
        assert {result.code for result in results if result.status == 401} == codes(InvalidToken) - others
    assert count_different(rejected) == 1


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_cached_rejection_gets_the_same_response(
    attack_env: AttackEnv, leak_detector: LeakDetector, tokens: Mapping[str, str], mode: Mode
) -> None:
    app = attack_env.make_app(leak_detector, mode=mode, rejection_ttl=10)
    results = [app.send_token(entry_point, tokens["token-review-failed"]) for entry_point in ENTRY_POINTS * 2]
    assert {result.code for result in results} == {"token-review-failed"}
    assert count_different(results) == 1


def test_all_reasons_for_403_get_the_same_response_in_each_mode(
    attack_env: AttackEnv, apps: Apps, tokens: Mapping[str, str]
) -> None:
    tried = [
        (attack_env.token, MALLORY),
        (attack_env.token, None),
        (tokens["host-network"], ALICE),
        (tokens["not-allowed"], ALICE),
    ]
    results = []
    for app in apps.values():
        denied = [app.send_token(entry_point, *one) for entry_point in ENTRY_POINTS for one in tried]
        assert {result.code for result in denied} == codes(Forbidden) - {Forbidden.code, OriginalUnknown.code}
        results += denied
    assert count_different(results) == 1


def test_all_malformed_headers_get_the_same_response_in_each_mode(attack_env: AttackEnv, apps: Apps) -> None:
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
    headers = [*([(b"authorization", value)] for value in malformed), [(b"authorization", valid)] * 2]
    results = [app.send(entry_point, one) for app in apps.values() for entry_point in ENTRY_POINTS for one in headers]
    assert {(result.status, result.code) for result in results} == {(400, "malformed-credential")}
    assert count_different(results) == 1


def test_all_reasons_for_503_get_the_same_response_in_each_mode(
    attack_env: AttackEnv, leak_detector: LeakDetector
) -> None:
    results = []
    for number, mode in enumerate(MODES):
        entry_point = ENTRY_POINTS[number % len(ENTRY_POINTS)]
        app = attack_env.make_app(leak_detector, mode=mode, timeout=0.5)
        for fault in ("refuse", "hang", "html", 500, 403):
            attack_env.cluster.fail(fault)
            results.append(app.send_token(entry_point, attack_env.token))
            attack_env.cluster.heal()
        # The share of one address, half of the places, stays full until the API server responds: the timeout is far.
        busy_app = attack_env.make_app(leak_detector, mode=mode, max_reviews=1, timeout=60)
        attack_env.cluster.fail("hang")
        tokens = [attack_env.alice.token("bob") for _ in range(MAX_PENDING_PER_THREAD // 2)]
        queued = [busy_app.authenticator.start(token, ALICE) for token in tokens]
        results.append(busy_app.send_token(entry_point, attack_env.token))
        attack_env.cluster.heal()
        assert all(review.result(TIMEOUT_SECONDS) for review in queued)
    assert {(result.status, result.code) for result in results} == {(503, code) for code in codes(Unavailable)}
    assert count_different(results) == 1
