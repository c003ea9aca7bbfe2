"""A flood of forgeries from one address is nobody else's trouble, and hardly the API server's."""

from __future__ import annotations

import pytest

from podproof.authenticator import MOST_REFUSALS
from tests.security.bob import ALICE, DOORS, MALLORY, Clock, World
from tests.security.ears import Ears

FLOOD = 5 * MOST_REFUSALS


@pytest.mark.trap(29)
@pytest.mark.parametrize("door", DOORS)
def test_only_the_first_forgeries_from_an_address_are_reviewed(world: World, ears: Ears, door: str) -> None:
    clock = Clock()
    bob = world.bob(ears, clock, rejection_ttl=10)
    assert bob.bring(door, world.token, ALICE).accepted
    world.cluster.requests.clear()
    replies = [bob.bring(door, world.cluster.forge(world.alice.token("bob")), ALICE) for _ in range(FLOOD)]
    assert [reply.status for reply in replies] == [401] * MOST_REFUSALS + [503] * (FLOOD - MOST_REFUSALS)
    assert world.cluster.count("tokenreviews") == MOST_REFUSALS
    assert bob.bring(door, world.token, ALICE).accepted
    assert bob.bring(door, world.alice.token("bob"), ALICE).code == "overloaded"
    assert bob.bring(door, world.mallory.token("bob"), MALLORY).accepted
    clock.passes(10)
    assert bob.bring(door, world.alice.token("bob"), ALICE).accepted
