"""API calls for a day's trace, replayed on simulated time: how often the API server is asked, and by whom.

200 callers, whose tokens rotate hourly, call each of 12 processes every 5 seconds, now and then with a few requests at
once. The processes have nothing in common, so one is replayed, and counted 12 times.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from typing import Any

from benchmarks.fakes import ADDRESS, AUDIENCE, CountingAPI, Tokens
from benchmarks.report import Amount, Row
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.cached_identity import AuthenticationResult
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.options import Options

CALLERS = 200
PROCESSES = 12
DAY = 86_400
ROTATION = 3600
INTERVAL = 5
BURSTS = (1, 1, 1, 3, 1, 2, 1, 1, 4, 1, 1)
"""How many requests come at once. 11 divides none of the times, so that each burst meets each age of a cache."""

BEGIN = 1_800_000_000


def rows() -> Iterator[Row]:
    """Replay the day."""
    options = Options(audience=(AUDIENCE,))
    asked, requests = replay(options)
    most = CALLERS * (DAY // ROTATION) * PROCESSES * int(ROTATION / options.cache_ttl)
    asked, requests = asked * PROCESSES, requests * PROCESSES
    beside = {
        "a review a request": requests,
        "a 10 s cache without single flight": without_single_flight(10) * PROCESSES,
        "a 120 s cache without single flight": without_single_flight(120) * PROCESSES,
        "tokens x processes x token life / cache_ttl": most,
    }
    for name, theirs in beside.items():
        goal = "equal" if theirs is most else ""
        yield Row(
            "reviews for a day's trace: 200 callers, tokens rotating hourly, 12 processes",
            Amount(asked),
            name,
            Amount(theirs),
            asked / theirs,
            goal,
            asked == most if goal else None,
        )


def visits() -> Iterator[tuple[float, int, int, int]]:
    """Give each visit's time, its caller, the number of the caller's token, and how many requests come at once."""
    phases = sorted(random.Random(1).uniform(0, INTERVAL) for _ in range(CALLERS))  # noqa: S311  no secret
    for turn in range(DAY // INTERVAL):
        burst = BURSTS[turn % len(BURSTS)]
        for caller, phase in enumerate(phases):
            yield BEGIN + turn * INTERVAL + phase, caller, turn * INTERVAL // ROTATION, burst


class _Clock:
    now = float(BEGIN)

    def __call__(self) -> float:
        return self.now


class _HeldAPI(CountingAPI):
    """Answers a review only when all requests of a burst have come."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Semaphore(0)

    def review_token(self, *given: Any) -> Mapping[str, Any]:
        """Return a TokenReview, when it may."""
        self.may_answer.acquire()
        return super().review_token(*given)


def replay(options: Options) -> tuple[int, int]:
    """Return how many reviews one process asks for, and how many requests it gets."""
    clock, api, tokens = _Clock(), _HeldAPI(), Tokens()
    authenticator = Authenticator(
        options, TokenReviewVerifier(api, options.audience), PodLookup(api), now=clock, monotonic=clock
    )
    current: dict[int, tuple[int, str]] = {}
    requests = 0
    with closing(authenticator):
        for clock.now, caller, number, burst in visits():
            if current.get(caller, (None, ""))[0] != number:
                # The kubelet renews a token at 80 % of its life.
                token = tokens.make(name=f"caller-{caller}", issued_at=clock.now, lifetime=ROTATION / 0.8)
                current[caller] = number, token
            token = current[caller][1]
            futures: set[Future[AuthenticationResult]] = set()
            for _ in range(burst):
                if authenticator.get_cached(token, ADDRESS) is None:
                    futures.add(authenticator.start(token, ADDRESS))
            if futures:
                api.may_answer.release(len(futures))
                for future in futures:
                    authenticator.check_peer(future.result(), ADDRESS)
            requests += burst
    return api.reviews, requests


def without_single_flight(ttl: float) -> int:
    """Return how many reviews a plain cache asks for: those who come at once all find it empty at once."""
    ends: dict[tuple[int, int], float] = {}
    reviews = 0
    for now, caller, number, burst in visits():
        if now >= ends.get((caller, number), 0):
            ends[caller, number] = now + ttl
            reviews += burst
    return reviews
