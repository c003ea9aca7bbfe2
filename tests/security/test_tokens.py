"""Invalid tokens of every form: a token is allowed only if the reference model allows it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof.errors import InvalidToken, MalformedCredential
from podproof.identity import PodIdentity
from podproof.testing._emulator.tokens import encode, parse
from tests.security import hostile_tokens
from tests.security.attacked_app import ALICE, ENTRY_POINTS, LOCAL, MALLORY, AttackedApps, AttackEnv
from tests.security.json_mutations import render
from tests.support.leak_detector import LeakDetector


@pytest.fixture(scope="module")
def app(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApps:
    """Return an app with its usual cache: the result for one token never allows another."""
    return attack_env.make_apps(leak_detector)


def send(
    attack_env: AttackEnv,
    app: AttackedApps,
    entry_point: str,
    token: bytes,
    peer: str = ALICE,
    *,
    odd: bool = False,
) -> bool:
    """Send a token in each mode, and return True if it is allowed; then the model allows it too."""
    model_allows = attack_env.model_allows([b"Bearer " + token], peer)
    result = app.send_token(entry_point, token, peer, odd=odd)
    assert result.status in ({200, 400, 401} if peer == ALICE else {200, 400, 401, 403})
    assert model_allows or not result.allowed
    return result.allowed


@given(data=st.data(), entry_point=st.sampled_from(ENTRY_POINTS), peer=st.sampled_from([ALICE, ALICE, MALLORY]))
def test_an_invalid_token_is_denied(
    attack_env: AttackEnv, app: AttackedApps, data: st.DataObject, entry_point: str, peer: str
) -> None:
    send(attack_env, app, entry_point, data.draw(hostile_tokens.invalid_tokens(attack_env.token)), peer)


def test_every_other_spelling_of_a_valid_token_is_denied(
    attack_env: AttackEnv, app: AttackedApps, record_property: Callable[[str, object], None]
) -> None:
    token = attack_env.token.encode()
    spellings = hostile_tokens.other_spellings(token)
    assert not any(send(attack_env, app, entry_point, one) for entry_point, one in zip(cycle(ENTRY_POINTS), spellings))
    assert all(send(attack_env, app, entry_point, token) for entry_point in ENTRY_POINTS)
    record_property("cases", len(spellings) + len(ENTRY_POINTS))


def test_every_signature_but_the_cluster_s_is_rejected(
    attack_env: AttackEnv, app: AttackedApps, record_property: Callable[[str, object], None]
) -> None:
    payload = render(parse(attack_env.token).claims).encode()
    changes = [{"alg": algorithm} for algorithm in hostile_tokens.ALGORITHMS] + [*hostile_tokens.KEYS_IN_HEADERS]
    cases = [(change, sign) for change in changes for sign in hostile_tokens.SIGNATURES]
    for change, sign in cases:
        header = {**hostile_tokens.genuine_header(), **change}
        outcome = app.authenticate(hostile_tokens.make_token(render(header).encode(), payload, sign).decode(), odd=True)
        genuine = header["alg"] == "RS256" and sign is hostile_tokens.GENUINE
        assert isinstance(outcome, PodIdentity) == (genuine and not header.keys() & {"crit", "zip"})
    record_property("cases", len(cases))


def test_a_token_with_one_changed_claim_is_decided_as_the_model_does(
    attack_env: AttackEnv, app: AttackedApps, record_property: Callable[[str, object], None]
) -> None:
    tokens = hostile_tokens.tokens_with_one_change(attack_env.token)
    accepted = sum(
        send(attack_env, app.in_turn(number), entry_point, token, odd=True)
        for number, (entry_point, token) in enumerate(zip(cycle(ENTRY_POINTS), tokens))
    )
    record_property("cases", len(tokens))
    assert 40 < accepted < len(tokens) / 2


def test_a_token_with_an_odd_payload_is_decided_as_the_model_does(
    attack_env: AttackEnv, app: AttackedApps, record_property: Callable[[str, object], None]
) -> None:
    claims, header = parse(attack_env.token).claims, render(hostile_tokens.genuine_header()).encode()
    odd = [*map(render, hostile_tokens.odd_claims(claims))]
    payloads = [*map(str.encode, odd), *hostile_tokens.odd_bytes(render(claims).encode())]
    tokens = [hostile_tokens.make_token(header, payload, hostile_tokens.GENUINE) for payload in payloads]
    accepted = sum(
        send(attack_env, app, entry_point, token, odd=True) for entry_point, token in zip(cycle(ENTRY_POINTS), tokens)
    )
    record_property("cases", len(tokens))
    assert 0 < accepted < len(tokens)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "bob"},
        {"aud": ["eve", "bob"]},
        {"more": "x" * 5000},
        {"more": [[[[[{}]]]]]},
        {"more": "\N{SNOWMAN}"},
        {"jti": None},
    ],
)
def test_a_genuine_token_may_have_further_claims(
    attack_env: AttackEnv, app: AttackedApps, entry_point: str, claims: dict[str, object]
) -> None:
    token = attack_env.cluster.sign({**parse(attack_env.token).claims, **claims})
    assert send(attack_env, app, entry_point, token.encode(), odd=None in claims.values())


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("peer", [MALLORY, LOCAL, "::1", "10.0.0.1", None])
def test_a_stolen_token_is_denied_from_any_other_address(
    attack_env: AttackEnv, app: AttackedApps, entry_point: str, peer: str | None
) -> None:
    assert app.send_token(entry_point, attack_env.token, ALICE).caller == "default/alice-pod"
    assert app.send_token(entry_point, attack_env.token, peer).status == 403


@given(text=st.text(st.characters(codec=None)) | st.text("\ud800\udfff\0\N{SNOWMAN}aA.-_"))
def test_text_that_no_header_can_hold_is_rejected(app: AttackedApps, text: str) -> None:
    outcome = app.authenticate(text)
    assert isinstance(outcome, MalformedCredential | InvalidToken)


@given(junk=st.binary(min_size=1, max_size=9000), entry_point=st.sampled_from(ENTRY_POINTS))
def test_random_bytes_are_denied(attack_env: AttackEnv, app: AttackedApps, junk: bytes, entry_point: str) -> None:
    assert not send(attack_env, app, entry_point, junk)
    assert not send(attack_env, app, entry_point, encode(junk).encode())
    assert not send(attack_env, app, entry_point, b".".join([encode(junk).encode()] * 3))
