"""A flood of forged tokens from one address affects no other address, and costs the API server few reviews."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from podproof._authentication.authenticator import MAX_REJECTIONS, REJECTION_WINDOW
from tests.security import hostile_tokens
from tests.security.attacked_app import ALICE, ENTRY_POINTS, MALLORY, AttackEnv, OffsetClock
from tests.support.leak_detector import LeakDetector
from tests.support.modes import MODES, Mode

FLOOD = 5 * MAX_REJECTIONS

FORGERIES: dict[str, Callable[[AttackEnv], str]] = {
    "of an unknown key": lambda env: env.cluster.forge(env.alice.token("bob")),
    "of the known key": lambda env: hostile_tokens.forge_under_the_known_key(env.alice.token("bob")),
}


@pytest.mark.trap(29)
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_only_the_first_forged_tokens_from_an_address_are_verified(
    attack_env: AttackEnv, leak_detector: LeakDetector, forgery: str, mode: Mode
) -> None:
    entry_point = ENTRY_POINTS[MODES.index(mode) % len(ENTRY_POINTS)]
    clock = OffsetClock()  # it runs on: the rejections must outlast the flood on any machine
    app = attack_env.make_app(leak_detector, clock, max_rejections=MAX_REJECTIONS, mode=mode)
    assert app.send_token(entry_point, attack_env.token, ALICE).allowed
    attack_env.cluster.requests.clear()
    results = [app.send_token(entry_point, FORGERIES[forgery](attack_env), ALICE) for _ in range(FLOOD)]
    assert [result.status for result in results] == [401] * MAX_REJECTIONS + [503] * (FLOOD - MAX_REJECTIONS)
    # A signature by the known key is wrong without a question; of other keys only a review knows.
    is_reviewed = mode.verify == "review" or forgery == "of an unknown key"
    assert attack_env.cluster.count("tokenreviews") == (MAX_REJECTIONS if is_reviewed else 0)
    assert app.send_token(entry_point, attack_env.token, ALICE).allowed
    assert app.send_token(entry_point, attack_env.alice.token("bob"), ALICE).code == "overloaded"
    assert app.send_token(entry_point, attack_env.mallory.token("bob"), MALLORY).allowed
    clock.advance(REJECTION_WINDOW)
    assert app.send_token(entry_point, attack_env.alice.token("bob"), ALICE).allowed
