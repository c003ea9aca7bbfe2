"""A flood of forgeries from one address is nobody else's trouble, and hardly the API server's."""

from __future__ import annotations

import pytest

from podproof._authentication.authenticator import MAX_REJECTIONS
from tests.security.attacked_app import ALICE, DOORS, MALLORY, Clock, World
from tests.support.leak_detector import Ears

FLOOD = 5 * MAX_REJECTIONS


@pytest.mark.trap(29)
@pytest.mark.parametrize("door", DOORS)
def test_only_the_first_forgeries_from_an_address_are_reviewed(world: World, ears: Ears, door: str) -> None:
    clock = Clock()
    bob = world.bob(ears, clock, rejection_ttl=10)
    assert bob.bring(door, world.token, ALICE).accepted
    world.cluster.requests.clear()
    replies = [bob.bring(door, world.cluster.forge(world.alice.token("bob")), ALICE) for _ in range(FLOOD)]
    assert [reply.status for reply in replies] == [401] * MAX_REJECTIONS + [503] * (FLOOD - MAX_REJECTIONS)
    assert world.cluster.count("tokenreviews") == MAX_REJECTIONS
    assert bob.bring(door, world.token, ALICE).accepted
    assert bob.bring(door, world.alice.token("bob"), ALICE).code == "overloaded"
    assert bob.bring(door, world.mallory.token("bob"), MALLORY).accepted
    clock.passes(10)
    assert bob.bring(door, world.alice.token("bob"), ALICE).accepted
