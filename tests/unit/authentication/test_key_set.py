"""When signing keys are fetched, and which ones are used while they cannot be."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
from prometheus_client import REGISTRY

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.claims import MAX_TOKEN
from podproof._authentication.jws import parse_jws
from podproof._authentication.key_set import FETCH_TIMEOUT, MAX_KEYS, REFRESH_INTERVAL, RETRY_INTERVAL, KeySet
from podproof._authentication.key_source import APIServerKeys
from podproof.errors import (
    Unavailable,
)
from podproof.testing import Cluster
from tests.support.fake_api import ALICE, NOW, Clock
from tests.support.key_verifier import REVIEWED, Verifying
from tests.support.signed_tokens import (
    jwk_of,
    jwks,
    rsa_jwk,
    signed_token,
)


@pytest.fixture
def verifying(time: Clock) -> Verifying:
    return Verifying(time)


def test_nothing_is_fetched_before_the_first_token(verifying: Verifying) -> None:
    assert verifying.source.fetches == 0


def test_keys_are_fetched_again_after_their_interval(verifying: Verifying) -> None:
    token = signed_token(claims=ALICE | {"exp": NOW + 9999})
    for passed, fetches in ((0, 1), (REFRESH_INTERVAL - 1, 1), (1, 2), (1, 2)):
        verifying.time.passes(passed)
        assert verifying.verify(token) is not REVIEWED
        assert verifying.source.fetches == fetches


def test_a_fetch_takes_two_seconds_or_half_of_the_time_that_is_left(verifying: Verifying) -> None:
    verifying.verify(signed_token(), seconds=60)
    assert verifying.source.deadline == NOW + FETCH_TIMEOUT
    verifying.time.passes(REFRESH_INTERVAL)
    verifying.verify(signed_token(), seconds=1)
    assert verifying.source.deadline == verifying.time() + 0.5


def test_with_no_time_left_nothing_is_fetched(verifying: Verifying) -> None:
    assert verifying.verify(signed_token(), seconds=0) is REVIEWED
    assert verifying.source.fetches == 0


def test_a_new_key_is_fetched_when_a_token_names_it(verifying: Verifying) -> None:
    assert verifying.verify(signed_token()) is not REVIEWED
    verifying.source.document = jwks(jwk_of("ES256"), jwk_of("ES384"))
    verifying.time.passes(RETRY_INTERVAL)
    assert verifying.verify(signed_token("ES384")) is not REVIEWED
    assert verifying.verify(signed_token()) is not REVIEWED
    assert verifying.source.fetches == 2


def test_unknown_keys_cause_one_fetch_in_their_interval(verifying: Verifying) -> None:
    for number in range(20):
        assert verifying.is_reviewed(signed_token(header={"kid": f"unknown-{number}"}))
    assert verifying.source.fetches == 1
    verifying.time.passes(RETRY_INTERVAL)
    for number in range(20):
        assert verifying.is_reviewed(signed_token(header={"kid": f"unknown-{number}"}))
    assert verifying.source.fetches == 2


def test_a_key_that_is_withdrawn_verifies_nothing_after_the_next_fetch(verifying: Verifying) -> None:
    token = signed_token(claims=ALICE | {"exp": NOW + 9999})
    assert verifying.verify(token) is not REVIEWED
    verifying.source.document = jwks()
    verifying.time.passes(REFRESH_INTERVAL)
    assert verifying.verify(token) is REVIEWED


@pytest.mark.parametrize(
    "broken",
    [
        Unavailable("the source is down"),
        {},
        {"keys": {}},
        {"keys": None},
        jwks(*[{"kty": "oct"}] * (MAX_KEYS + 1)),
    ],
)
def test_the_previous_keys_are_used_while_their_source_fails(
    verifying: Verifying, caplog: pytest.LogCaptureFixture, broken: object
) -> None:
    good, token = verifying.source.document, signed_token(claims=ALICE | {"exp": NOW + 9999})
    assert verifying.verify(token) is not REVIEWED
    verifying.source.document = broken
    verifying.time.passes(REFRESH_INTERVAL)
    for _ in range(4):
        assert verifying.verify(token) is not REVIEWED
        verifying.time.passes(RETRY_INTERVAL / 2)
    assert verifying.source.fetches == 3  # and from the first failure on after the shorter interval
    (message,) = caplog.messages
    assert message.startswith("the signing keys of the fake source cannot be read: ")
    assert message.endswith("; until they can be, the previous ones are used")
    verifying.source.document = good
    assert verifying.verify(token) is not REVIEWED
    verifying.source.document = broken
    verifying.time.passes(REFRESH_INTERVAL)
    assert verifying.verify(token) is not REVIEWED
    assert len(caplog.messages) == 2


def test_without_any_keys_tokens_are_reviewed_and_the_log_says_why(
    verifying: Verifying, caplog: pytest.LogCaptureFixture
) -> None:
    verifying.source.document = Unavailable("the role is missing")
    for _ in range(3):
        assert verifying.is_reviewed(signed_token())
    assert verifying.source.fetches == 1
    assert caplog.messages == [
        "the signing keys of the fake source cannot be read: the role is missing; until they can be, tokens are "
        "reviewed by the API server"
    ]
    verifying.source.document = jwks(jwk_of("ES256"))
    verifying.time.passes(RETRY_INTERVAL)
    assert verifying.verify(signed_token()) is not REVIEWED


@contextmanager
def fetching(verifying: Verifying, pool: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """Begin a fetch in another thread, which goes on until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(10)

    verifying.source.before = wait
    future = pool.submit(verifying.verify, signed_token(claims=ALICE | {"exp": NOW + 9999}))
    assert begun.wait(10)
    yield go_on
    go_on.set()
    assert future.result(10) is not REVIEWED


def test_while_one_thread_fetches_the_others_use_the_previous_keys(verifying: Verifying) -> None:
    token = signed_token(claims=ALICE | {"exp": NOW + 9999})
    verifying.verify(token)
    verifying.time.passes(REFRESH_INTERVAL)
    with ThreadPoolExecutor() as pool, fetching(verifying, pool):
        # In a shorter time than they would wait for keys.
        assert pool.submit(verifying.verify, token).result(FETCH_TIMEOUT / 2) is not REVIEWED
        assert pool.submit(verifying.verify, signed_token("ES384")).result(FETCH_TIMEOUT / 2) is REVIEWED
    assert verifying.source.fetches == 2


def test_without_keys_the_other_threads_wait_for_the_one_that_fetches_them(verifying: Verifying) -> None:
    with ThreadPoolExecutor() as pool:
        with fetching(verifying, pool) as go_on:
            others = [pool.submit(verifying.verify, signed_token()) for _ in range(3)]
            assert verifying.verify(signed_token(), seconds=0.02) is REVIEWED  # who has no time left does not
            assert not any(other.done() for other in others)
            go_on.set()
        assert all(other.result(10) is not REVIEWED for other in others)
    assert verifying.source.fetches == 1


def test_an_error_of_our_own_in_a_fetch_keeps_nothing_locked(verifying: Verifying) -> None:
    verifying.source.document = KeyError("ours")
    with pytest.raises(KeyError):
        verifying.verify(signed_token())
    verifying.source.document = jwks(jwk_of("ES256"))
    verifying.time.passes(RETRY_INTERVAL)
    assert verifying.verify(signed_token()) is not REVIEWED


@pytest.mark.trap(52)
def test_a_forked_child_fetches_keys_of_its_own(verifying: Verifying, monkeypatch: pytest.MonkeyPatch) -> None:
    verifying.verify(signed_token())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    verifying.verify(signed_token())
    assert verifying.source.fetches == 2


def test_the_keys_beside_one_that_is_not_used_are_used_and_it_is_logged_once(
    verifying: Verifying, caplog: pytest.LogCaptureFixture
) -> None:
    verifying.source.document = jwks({"kty": "oct"}, jwk_of("ES256"), rsa_jwk(3))
    for _ in range(3):
        assert verifying.verify(signed_token()) is not REVIEWED
        verifying.time.passes(REFRESH_INTERVAL)
    assert verifying.source.fetches == 3
    assert caplog.messages == [
        "some signing keys of the fake source are not used: key 1 of 3: it has no kid, which tokens would name it by; "
        "key 3 of 3: its exponent is not an odd number from 65537 to 4294967295"
    ]
    verifying.source.document = jwks(jwk_of("ES256"))
    verifying.verify(signed_token(claims=ALICE | {"exp": NOW + 9999}))
    assert len(caplog.messages) == 1


def test_a_missing_role_at_the_api_server_is_named_in_the_log(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    kubeconfig = str(cluster.kubeconfig_for("default/bob"))
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": kubeconfig}))
    key_set = KeySet(APIServerKeys(client))
    cluster.fail(403)
    assert key_set.find("kid", key_set._monotonic() + 5) == ()
    assert "the API server cannot be read" in caplog.text
    assert "system:service-account-issuer-discovery" in caplog.text
    client.close()


def test_the_keys_when_they_were_fetched_and_when_they_could_not_be_are_metrics(verifying: Verifying) -> None:
    def values() -> list[float | None]:
        names = ("signing_keys", "key_set_timestamp_seconds", "key_set_failure_timestamp_seconds")
        return [REGISTRY.get_sample_value(f"podproof_{name}") for name in names]

    _, _, failed = values()
    verifying.verify(signed_token())
    assert values() == [1, NOW, failed]
    verifying.source.document = Unavailable("the source is down")
    verifying.time.passes(REFRESH_INTERVAL)
    verifying.verify(signed_token())
    assert values() == [1, NOW, NOW + REFRESH_INTERVAL]


@pytest.mark.parametrize(("algorithm", "result"), [("ES256", "hit"), ("ES384", "miss")])
def test_lookups_of_keys_are_hits_or_misses(verifying: Verifying, algorithm: str, result: str) -> None:
    def lookups() -> float:
        return REGISTRY.get_sample_value("podproof_key_set_lookups_total", {"result": result}) or 0

    before = lookups()
    verifying.verify(signed_token(algorithm))
    assert lookups() == before + 1
    verifying.verifier.verify_at_once(parse_jws(signed_token(algorithm), most=MAX_TOKEN))
    assert lookups() == before + (2 if result == "hit" else 1)  # a miss is looked up once more
