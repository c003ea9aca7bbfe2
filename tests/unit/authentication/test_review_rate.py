"""How often the API server is called: once per caller, token and `cache_ttl`, however many requests come at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from podproof._authentication.cached_identity import AuthenticationResult
from podproof.options import Options
from tests.support.fake_api import NOW, PEER, ClaimsAPI, Clock, TokenFactory, authenticator_for

CALLERS = 3
ROTATION = 3600
"""Seconds from one token of a caller to its next."""

TOKENS = 2
"""Of each caller, one after the other."""

INTERVAL = 5
"""Seconds between two visits of a caller."""

BURSTS = (1, 1, 1, 3, 1, 2, 1, 1, 4, 1, 1)
"""How many requests come at once. 11 divides none of the times, so that each burst meets each age of a cache entry."""


def replay(cache_ttl: float, time: Clock) -> tuple[int, int]:
    """Return how many reviews a trace of callers costs one process, and how many requests it has."""
    api, make_token, may_respond = ClaimsAPI(), TokenFactory(), threading.Semaphore(0)
    # A review responds only when all requests of a burst have come.
    api.before = may_respond.acquire
    options = Options(audience=("bob",), cache_ttl=cache_ttl)
    authenticator = authenticator_for(api, options, now=time, monotonic=time)
    requests = 0
    for turn in range(TOKENS * ROTATION // INTERVAL):
        time.seconds = NOW + turn * INTERVAL
        if turn * INTERVAL % ROTATION == 0:
            # The kubelet renews a token at 80 % of its lifetime.
            lifetime = ROTATION / 0.8
            tokens = [
                make_token(pod_name=f"caller-{number}", issued_at=time(), lifetime=lifetime)
                for number in range(CALLERS)
            ]
        burst = BURSTS[turn % len(BURSTS)]
        for token in tokens:
            requests += burst
            futures: set[Future[AuthenticationResult]] = set()
            for _ in range(burst):
                if authenticator.get_cached(token, PEER) is None:
                    futures.add(authenticator.start(token, PEER))
            for _ in futures:  # one, if all share it
                may_respond.release()
            for future in futures:
                authenticator.check_peer(future.result(10), PEER)
    authenticator.close()
    return api.reviews, requests


@pytest.mark.trap(27, 30)
@pytest.mark.parametrize("cache_ttl", [60, 120])
def test_each_caller_is_reviewed_once_per_token_and_cache_ttl(time: Clock, cache_ttl: int) -> None:
    reviews, requests = replay(cache_ttl, time)
    assert reviews == CALLERS * TOKENS * ROTATION // cache_ttl
    assert requests > CALLERS * TOKENS * ROTATION // INTERVAL
