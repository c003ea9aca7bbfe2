from __future__ import annotations

import threading

import pytest

from podproof._cache.ttl_cache import TTLCache
from tests.support.fake_api import Clock


@pytest.fixture
def cache(time: Clock) -> TTLCache[str, str]:
    return TTLCache("test", size=3, ttl=5, monotonic=time)


def test_a_value_is_cached_for_the_ttl(cache: TTLCache[str, str], time: Clock) -> None:
    cache.put("a", "value")
    time.passes(4.9)
    assert cache.get("a") == cache.peek("a") == "value"
    time.passes(0.1)
    assert cache.get("a") is None
    assert cache.get("b") is None


def test_a_newer_value_replaces_an_older_one_and_has_its_whole_ttl(cache: TTLCache[str, str], time: Clock) -> None:
    cache.put("a", "old")
    time.passes(4)
    cache.put("a", "new")
    time.passes(4)
    assert cache.get("a") == "new"
    assert len(cache) == 1


def test_a_value_can_be_discarded(cache: TTLCache[str, str]) -> None:
    cache.put("a", "value")
    cache.discard("a")
    cache.discard("a")
    assert cache.get("a") is None


@pytest.mark.trap(28)
def test_the_least_recently_used_value_is_evicted_for_the_newest(cache: TTLCache[str, str]) -> None:
    for number in range(100):
        cache.put(str(number), "value")
    assert len(cache) == 3
    assert [number for number in range(100) if cache.get(str(number))] == [97, 98, 99]


def test_a_cache_with_ttl_0_holds_nothing(time: Clock) -> None:
    cache: TTLCache[str, str] = TTLCache("test", size=3, ttl=0, monotonic=time)
    cache.put("a", "value")
    assert cache.get("a") is None


def test_an_update_is_made_from_the_value_that_has_not_expired(time: Clock) -> None:
    counts: TTLCache[str, int] = TTLCache("test", size=3, ttl=5, monotonic=time)
    for _ in range(3):
        counts.update("a", lambda count: (count or 0) + 1)
    assert counts.get("a") == 3
    time.passes(5)
    counts.update("a", lambda count: (count or 0) + 1)
    assert counts.get("a") == 1


def test_updates_of_many_threads_are_all_counted(time: Clock) -> None:
    counts: TTLCache[str, int] = TTLCache("test", size=3, ttl=5, monotonic=time)

    def count() -> None:
        for _ in range(1000):
            counts.update("a", lambda count: (count or 0) + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.get("a") == 4000
