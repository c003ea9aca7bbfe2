"""A flood of forged tokens from one address affects no other address, and costs the API server few reviews."""

from __future__ import annotations

import pytest

from podproof._authentication.authenticator import MAX_REJECTIONS, REJECTION_WINDOW
from tests.security.attacked_app import ALICE, ENTRY_POINTS, MALLORY, AttackEnv, OffsetClock
from tests.support.leak_detector import LeakDetector

FLOOD = 5 * MAX_REJECTIONS
"""Seconds."""


@pytest.mark.trap(29)
@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_only_the_first_forged_tokens_from_an_address_are_reviewed(
    attack_env: AttackEnv, leak_detector: LeakDetector, entry_point: str
) -> None:
    clock = OffsetClock()  # it runs on: the rejections must outlast the flood on any machine
    app = attack_env.make_app(leak_detector, clock, max_rejections=MAX_REJECTIONS)
    assert app.send_token(entry_point, attack_env.token, ALICE).allowed
    attack_env.cluster.requests.clear()
    results = [
        app.send_token(entry_point, attack_env.cluster.forge(attack_env.alice.token("bob")), ALICE)
        for _ in range(FLOOD)
    ]
    assert [result.status for result in results] == [401] * MAX_REJECTIONS + [503] * (FLOOD - MAX_REJECTIONS)
    assert attack_env.cluster.count("tokenreviews") == MAX_REJECTIONS
    assert app.send_token(entry_point, attack_env.token, ALICE).allowed
    assert app.send_token(entry_point, attack_env.alice.token("bob"), ALICE).code == "overloaded"
    assert app.send_token(entry_point, attack_env.mallory.token("bob"), MALLORY).allowed
    clock.advance(REJECTION_WINDOW)
    assert app.send_token(entry_point, attack_env.alice.token("bob"), ALICE).allowed
