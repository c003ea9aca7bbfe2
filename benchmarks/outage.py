"""The API server is away for ten minutes of simulated time, in the modes keys and watch, while tokens are rotated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from benchmarks.report import Amount, Measurement
from podproof.errors import PodAuthError
from tests.support.fake_api import ALICE, PEER, Clock
from tests.support.modes import ModeEnv

SECONDS, STEP = 600, 5


class Outcome(NamedTuple):
    """Requests of the known caller, those of them that were denied, and unknown callers that were let in."""

    requests: int
    lost: int
    let_in: int


def rows() -> Iterator[Measurement]:
    """Simulate the outage."""
    outcome = simulate()
    what = f"an outage of {SECONDS / 60:.0f} minutes, {outcome.requests} requests with rotated tokens"
    yield Measurement(f"{what}: known callers lost", Amount(outcome.lost), goal="0", met=outcome.lost == 0)
    yield Measurement(f"{what}: unknown callers let in", Amount(outcome.let_in), goal="0", met=outcome.let_in == 0)


def simulate() -> Outcome:
    """Have a known caller, with a new token each time, and unknown pods call while the API server is away."""
    env, requests, lost, let_in = ModeEnv("keys", "watch", Clock()), 0, 0, 0
    private: dict[str, Any] = dict(ALICE["kubernetes.io"])  # type: ignore[call-overload]  # an object of JSON
    env.authenticator.authenticate(env.token(), PEER)
    env.go_away()
    for second in range(0, SECONDS, STEP):
        env.passes(STEP)
        unknown = {
            "10.9.0.1": env.token(**{"kubernetes.io": private | {"pod": {"name": f"new-{second}", "uid": "new"}}}),
            "10.9.0.2": env.token(**{"kubernetes.io": private | {"pod": {"name": "alice-pod", "uid": "older"}}}),
            "10.9.0.3": env.token(),  # stolen
            PEER: env.token().rpartition(".")[0] + "." + env.token().rpartition(".")[2],  # of another token
        }
        requests += 1
        try:
            env.authenticator.authenticate(env.token(), PEER)
        except PodAuthError:
            lost += 1
        for peer, token in unknown.items():
            if peer != PEER or second % 60 == 0:  # a few: forgeries from its address would count against the caller
                with suppress(PodAuthError):
                    env.authenticator.authenticate(token, peer)
                    let_in += 1
    env.authenticator.close()
    return Outcome(requests, lost, let_in)
