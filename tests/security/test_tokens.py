"""Tokens of every broken form: who brings one is let in only if the model would let that very token in."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof.errors import InvalidToken, MalformedCredential
from podproof.identity import PodIdentity
from podproof.testing._emulator.tokens import encode, parse
from tests.security import jwts
from tests.security.attacked_app import ALICE, DOORS, LOCAL, MALLORY, Bob, World
from tests.security.mutations import render
from tests.support.leak_detector import Ears


@pytest.fixture(scope="module")
def bob(world: World, ears: Ears) -> Bob:
    """A Bob who remembers, as he does: nobody is let in by what was decided on another token."""
    return world.bob(ears)


def check(world: World, bob: Bob, door: str, token: bytes, peer: str = ALICE) -> bool:
    """Bring a token: who is let in, the model lets in too; to all else the answer is a refusal."""
    welcome = world.welcomes([b"Bearer " + token], peer)
    reply = bob.bring(door, token, peer)
    assert reply.status in ({200, 400, 401} if peer == ALICE else {200, 400, 401, 403})
    assert welcome or not reply.accepted
    return reply.accepted


@given(data=st.data(), door=st.sampled_from(DOORS), peer=st.sampled_from([ALICE, ALICE, MALLORY]))
def test_a_broken_token_lets_nobody_in(world: World, bob: Bob, data: st.DataObject, door: str, peer: str) -> None:
    check(world, bob, door, data.draw(jwts.broken(world.token)), peer)


def test_every_spelling_but_one_is_refused(
    world: World, bob: Bob, record_property: Callable[[str, object], None]
) -> None:
    token = world.token.encode()
    spellings = jwts.respelled(token)
    assert not any(check(world, bob, door, one) for one in spellings for door in DOORS)
    assert all(check(world, bob, door, token) for door in DOORS)
    record_property("cases", (len(spellings) + 1) * len(DOORS))


def test_every_signature_but_the_clusters_is_refused(
    world: World, bob: Bob, record_property: Callable[[str, object], None]
) -> None:
    payload = render(parse(world.token).claims).encode()
    changes = [{"alg": algorithm} for algorithm in jwts.ALGORITHMS] + [*jwts.KEYS_IN_HEADERS]
    cases = [(change, sign) for change in changes for sign in jwts.SIGNATURES]
    for change, sign in cases:
        header = {**jwts.genuine_header(), **change}
        outcome = bob.identify(jwts.assembled(render(header).encode(), payload, sign).decode())
        assert isinstance(outcome, PodIdentity) == (header["alg"] == "RS256" and sign is jwts.GENUINE)
    record_property("cases", len(cases))


def test_every_change_of_the_claims_is_judged_as_the_model_does(
    world: World, bob: Bob, record_property: Callable[[str, object], None]
) -> None:
    tokens = jwts.every_broken_claim(world.token)
    accepted = sum(check(world, bob, door, token) for door, token in zip(cycle(DOORS), tokens))
    record_property("cases", len(tokens))
    assert 50 < accepted < len(tokens) / 2


def test_every_odd_payload_is_judged_as_the_model_does(
    world: World, bob: Bob, record_property: Callable[[str, object], None]
) -> None:
    claims, header = parse(world.token).claims, render(jwts.genuine_header()).encode()
    odd = [*map(render, jwts.odd_claims(claims))]
    payloads = [*map(str.encode, odd), *jwts.odd_bytes(render(claims).encode())]
    tokens = [jwts.assembled(header, payload, jwts.GENUINE) for payload in payloads]
    accepted = sum(check(world, bob, door, token) for token in tokens for door in DOORS)
    record_property("cases", len(tokens) * len(DOORS))
    assert 0 < accepted < len(tokens)


@pytest.mark.parametrize("door", DOORS)
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
def test_a_genuine_token_may_say_more_than_it_must(
    world: World, bob: Bob, door: str, claims: dict[str, object]
) -> None:
    assert check(world, bob, door, world.cluster.sign({**parse(world.token).claims, **claims}).encode())


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("peer", [MALLORY, LOCAL, "::1", "10.0.0.1", None])
def test_a_stolen_token_is_of_no_use_elsewhere(world: World, bob: Bob, door: str, peer: str | None) -> None:
    assert bob.bring(door, world.token, ALICE).caller == "default/alice-pod"
    assert bob.bring(door, world.token, peer).status == 403


@given(text=st.text(st.characters(codec=None)) | st.text("\ud800\udfff\0\N{SNOWMAN}aA.-_"))
def test_text_that_no_header_can_hold_is_no_token(bob: Bob, text: str) -> None:
    outcome = bob.identify(text)
    assert isinstance(outcome, MalformedCredential | InvalidToken)


@given(junk=st.binary(min_size=1, max_size=9000), door=st.sampled_from(DOORS))
def test_noise_is_no_token(world: World, bob: Bob, junk: bytes, door: str) -> None:
    assert not check(world, bob, door, junk)
    assert not check(world, bob, door, encode(junk).encode())
    assert not check(world, bob, door, b".".join([encode(junk).encode()] * 3))
