"""`other_credentials="pass"` under attack: no token of the cluster becomes anonymous, and nobody else becomes a pod."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof.testing._emulator.tokens import parse
from tests.security import hostile_tokens
from tests.security.attacked_app import ALICE, ENTRY_POINTS, MALLORY, AttackedApps, AttackEnv, AttackResult
from tests.support.leak_detector import LeakDetector


@pytest.fixture(scope="module")
def app(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApps:
    return attack_env.make_apps(leak_detector, other_credentials="pass")


def names_the_cluster(header: bytes, issuer: str) -> bool:
    """Return True if the cluster's issuer stands in a header, as it is or base64-encoded at some place.

    The naive model: each run of the alphabet is decoded, and nothing is parsed.
    """
    # A longer one is another.
    wanted = re.compile(rb"(?<![\w.:/-])" + re.escape(issuer.encode()) + rb"/*(?![\w.:/-])", re.ASCII | re.IGNORECASE)
    runs = [run.translate(bytes.maketrans(b"-_", b"+/")) for run in re.findall(rb"[\w+/-]+", header, re.ASCII)]
    return any(wanted.search(base64.b64decode(run[: len(run) // 4 * 4])) for run in runs)


def judge(
    attack_env: AttackEnv,
    app: AttackedApps,
    entry_point: str,
    header: bytes,
    peer: str = ALICE,
    *,
    odd: bool = False,
) -> AttackResult:
    """Send a header: a pod is one for the model too, and what is anonymous does not name the cluster."""
    result = app.send(entry_point, [(b"authorization", header)], peer, odd=odd)
    if result.caller is not None:
        assert attack_env.model_allows([header], peer)
    elif result.allowed:
        assert not names_the_cluster(header, attack_env.cluster.issuer)
    return result


@given(data=st.data(), entry_point=st.sampled_from(ENTRY_POINTS), peer=st.sampled_from([ALICE, MALLORY]))
def test_an_invalid_token_is_denied_or_another_s(
    attack_env: AttackEnv, app: AttackedApps, data: st.DataObject, entry_point: str, peer: str
) -> None:
    token = data.draw(hostile_tokens.invalid_tokens(attack_env.token))
    scheme = data.draw(st.sampled_from([b"Bearer ", b"bearer ", b"Token ", b"Basic YTpi, Bearer ", b'Token token="']))
    judge(attack_env, app, entry_point, scheme + token, peer)


def test_no_other_spelling_of_a_valid_token_is_anonymous(
    attack_env: AttackEnv, app: AttackedApps, record_property: Callable[[str, object], None]
) -> None:
    spellings = [b"Bearer " + one for one in hostile_tokens.other_spellings(attack_env.token.encode())]
    for entry_point, spelling in zip(cycle(ENTRY_POINTS), spellings):
        assert judge(attack_env, app, entry_point, spelling).caller is None
    record_property("cases", len(spellings))


def test_a_token_with_one_change_is_never_anonymous_by_that(
    attack_env: AttackEnv, app: AttackedApps, record_property: Callable[[str, object], None]
) -> None:
    tokens = hostile_tokens.tokens_with_one_change(attack_env.token)
    for number, token in enumerate(tokens):
        entry_point = ENTRY_POINTS[number % len(ENTRY_POINTS)]
        judge(attack_env, app.in_turn(number), entry_point, b"Bearer " + token, odd=True)
    record_property("cases", len(tokens))


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_a_person_whose_token_says_what_a_pod_s_does_is_no_pod(
    attack_env: AttackEnv, app: AttackedApps, entry_point: str
) -> None:
    claims = {**parse(attack_env.token).claims, "iss": "https://accounts.example.com"}
    reviews = attack_env.cluster.count("tokenreviews")
    for token in (attack_env.cluster.sign(claims), attack_env.cluster.forge(attack_env.cluster.sign(claims))):
        result = app.send_token(entry_point, token)
        assert (result.status, result.caller) == (200, None)
    assert attack_env.cluster.count("tokenreviews") == reviews
