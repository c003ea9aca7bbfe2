from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest

from podproof._authentication.cluster_issuers import LEGACY, REREAD_INTERVAL, ClusterIssuers
from podproof._cache.review_threads import review_threads
from podproof.errors import PodAuthError, Unavailable
from tests.support.fake_api import Clock


class Reader:
    """Our own token: its issuer now, or an exception."""

    def __init__(self) -> None:
        self.result: str | Exception = "https://one"
        self.reads = 0

    def issuer(self, deadline: float) -> str:
        self.reads += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


Make = Callable[..., ClusterIssuers]


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def make(reader: Reader, time: Clock) -> Iterator[Make]:
    threads = review_threads(1)
    yield lambda *configured: ClusterIssuers(configured, reader, threads, monotonic=time)
    if (started := threads.pop()) is not None:
        started.shutdown()


def refresh(issuers: ClusterIssuers) -> PodAuthError | None:
    future = issuers.refresh(math.inf)
    return None if future is None else future.result(10)


def test_our_own_token_s_issuer_is_read_when_it_is_needed(make: Make, reader: Reader) -> None:
    issuers = make()
    assert (sorted(issuers.known), reader.reads) == (sorted({LEGACY}), 0)
    assert refresh(issuers) is None
    assert issuers.known == frozenset({"https://one", LEGACY})


def test_it_is_read_again_once_a_minute_and_older_ones_stay(make: Make, reader: Reader, time: Clock) -> None:
    issuers = make()
    refresh(issuers)
    reader.result = "https://two/"
    time.passes(REREAD_INTERVAL - 1)
    refresh(issuers)
    assert (sorted(issuers.known), reader.reads) == (sorted({"https://one", LEGACY}), 1)
    time.passes(1)
    refresh(issuers)
    assert issuers.known == frozenset({"https://one", "https://two", LEGACY})


@pytest.mark.parametrize("failure", [Unavailable("away"), KeyError("iss"), " "])
def test_as_long_as_none_could_be_read_each_refresh_says_so(
    make: Make, reader: Reader, failure: Exception | str
) -> None:
    issuers = make()
    reader.result = failure
    for reads in (1, 2):
        assert isinstance(refresh(issuers), Unavailable)
        assert reader.reads == reads
    reader.result = "https://one"
    assert refresh(issuers) is None


def test_once_one_is_known_a_failure_is_waited_for_once_a_minute(make: Make, reader: Reader, time: Clock) -> None:
    issuers = make()
    refresh(issuers)
    reader.result = Unavailable("away")
    time.passes(REREAD_INTERVAL)
    for _ in range(3):
        assert refresh(issuers) is None
    assert (sorted(issuers.known), reader.reads) == (sorted({"https://one", LEGACY}), 2)


def test_configured_issuers_are_all(make: Make, reader: Reader) -> None:
    issuers = make("https://One/", "two")
    assert refresh(issuers) is None
    assert (sorted(issuers.known), reader.reads) == (sorted({"https://one", "two", LEGACY}), 0)
