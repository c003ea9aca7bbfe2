"""Any bytes in any header: nobody is let in but by the one form of a good token, and nothing breaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.attacked_app import ALICE, DOORS, LOCAL, MALLORY, Bob, World
from tests.security.headers import authorizations, named
from tests.support.leak_detector import Ears


@pytest.fixture(scope="module")
def bob(world: World, ears: Ears) -> Bob:
    return world.bob(ears)


@pytest.fixture(scope="module")
def open_bob(world: World, ears: Ears) -> Bob:
    return world.bob(ears, optional=True, exempt=["/healthz"])


@pytest.fixture(scope="module")
def tokens(world: World) -> list[bytes]:
    """Alice's good token, and others of which each is good for something else."""
    others = [
        world.alice.token("eve"),
        world.alice.token("bob", lifetime=-120),
        world.cluster.forge(world.token),
        world.cluster.service_account("default/alice").token("bob"),
        world.mallory.token("bob"),
    ]
    return [token.encode() for token in (world.token, *others)]


@given(data=st.data(), door=st.sampled_from(DOORS))
def test_only_one_bearer_and_one_good_token_are_let_in(
    world: World, bob: Bob, tokens: list[bytes], data: st.DataObject, door: str
) -> None:
    values = data.draw(authorizations(tokens))
    peer = data.draw(st.sampled_from([ALICE, ALICE, MALLORY, LOCAL, None]))
    reply = bob.ask(door, [(b"authorization", value) for value in values], peer)
    assert reply.accepted == world.welcomes(values, peer)
    assert reply.status != 503


@given(data=st.data(), door=st.sampled_from(DOORS))
def test_a_bad_credential_is_never_taken_for_none(
    world: World, open_bob: Bob, tokens: list[bytes], data: st.DataObject, door: str
) -> None:
    values = data.draw(authorizations(tokens))
    reply = open_bob.ask(door, [(b"authorization", value) for value in values])
    assert reply.accepted == (not values or world.welcomes(values, ALICE))
    assert (reply.caller is None) == (not world.welcomes(values, ALICE))


@given(data=st.data(), door=st.sampled_from(DOORS))
def test_on_a_path_that_is_open_to_all_nobody_is_believed(
    open_bob: Bob, tokens: list[bytes], data: st.DataObject, door: str
) -> None:
    values = data.draw(authorizations(tokens))
    reply = open_bob.ask(door, [(b"authorization", value) for value in values], path="/healthz")
    assert (reply.status, reply.caller) == (200, None)


@given(headers=st.lists(named()), door=st.sampled_from(DOORS), peer=st.sampled_from([ALICE, MALLORY, LOCAL, None, ""]))
def test_no_other_header_opens_or_breaks_anything(
    world: World, bob: Bob, headers: list[tuple[bytes, bytes]], door: str, peer: str | None
) -> None:
    good = (b"authorization", b"Bearer " + world.token.encode())
    reply = bob.ask(door, [*headers, good], peer)
    assert world.welcomes([good[1]], peer) or not reply.accepted
    assert reply.status in (200, 403)
    assert bob.ask(door, headers, peer).status == 401


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
def test_the_scheme_is_read_in_any_case(world: World, bob: Bob, door: str, scheme: bytes) -> None:
    assert bob.ask(door, [(b"authorization", scheme + b" " + world.token.encode())]).accepted
