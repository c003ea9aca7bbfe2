from __future__ import annotations

from dataclasses import dataclass

import pytest

from podproof._cache.identity_cache import IdentityCache
from tests.support.fake_api import NOW, Clock


@dataclass(frozen=True)
class Entry:
    name: str
    cached_until: float
    read_at: float = NOW
    pod_uid: str = "uid"


@pytest.fixture
def cache(time: Clock) -> IdentityCache[Entry]:
    return IdentityCache(3, time)


def test_an_entry_is_cached_until_its_cached_until(cache: IdentityCache[Entry], time: Clock) -> None:
    entry = Entry("alice", NOW + 5)
    cache.put(b"a", entry)
    time.passes(4.9)
    assert cache.get(b"a") is cache.peek(b"a") is entry
    time.passes(0.1)
    assert cache.get(b"a") is None
    assert cache.get(b"b") is None


def test_a_newer_entry_replaces_an_older_one(cache: IdentityCache[Entry]) -> None:
    cache.put(b"a", Entry("old", NOW + 50))
    cache.put(b"a", Entry("new", NOW + 5))
    assert cache.get(b"a") == Entry("new", NOW + 5)
    assert len(cache) == 1


def test_an_entry_can_be_discarded(cache: IdentityCache[Entry]) -> None:
    cache.put(b"a", Entry("alice", NOW + 5))
    cache.discard(b"a")
    cache.discard(b"a")
    assert cache.get(b"a") is None


@pytest.mark.trap(28)
def test_the_oldest_entry_is_evicted_for_the_newest(cache: IdentityCache[Entry]) -> None:
    keys = [str(number).encode() for number in range(100)]
    for key in keys:
        cache.put(key, Entry("alice", NOW + 60))
    assert len(cache) == 3
    assert [key for key in keys if cache.get(key)] == [b"97", b"98", b"99"]


def test_an_entry_that_is_evicted_while_it_is_read_is_no_error(time: Clock) -> None:
    cache: IdentityCache[Entry] = IdentityCache(1, time)

    class ContestedKey(bytes):
        """A key that another thread evicts between its first lookup and a second."""

        lookups = 0

        def __hash__(self) -> int:
            self.lookups += 1
            if self.lookups == 2:
                cache.put(b"newer", Entry("bob", NOW + 60))
            return super().__hash__()

    alice = Entry("alice", NOW + 60)
    cache.put(b"a", alice)
    assert cache.get(ContestedKey(b"a")) in (alice, None)


def test_a_change_of_a_pod_removes_all_its_entries(cache: IdentityCache[Entry]) -> None:
    for key, pod_uid in ((b"a", "1"), (b"b", "2"), (b"c", "1")):
        cache.put(key, Entry("alice", NOW + 60, pod_uid=pod_uid))
    cache.discard_pod("1")
    cache.discard_pod("3")
    assert [cache.get(key) is None for key in (b"a", b"b", b"c")] == [True, False, True]
    cache.discard(b"b")
    assert len(cache) == 0
    assert cache._keys == {}


def test_what_was_read_before_a_change_is_not_cached_after_it(cache: IdentityCache[Entry], time: Clock) -> None:
    time.passes(1)
    cache.discard_pod("uid")
    cache.put(b"a", Entry("before", NOW + 60, read_at=NOW))
    assert cache.get(b"a") is None
    cache.put(b"a", Entry("after", NOW + 60, read_at=NOW + 2))
    assert cache.get(b"a") is not None


@pytest.mark.trap(28)
def test_the_keys_of_pods_go_with_their_entries(cache: IdentityCache[Entry]) -> None:
    for number in range(100):
        cache.put(b"%d" % number, Entry("alice", NOW + 60, pod_uid=str(number % 7)))
        cache.put(b"%d" % number, Entry("alice", NOW + 60, pod_uid=str(number % 5)))
    assert sum(map(len, cache._keys.values())) == len(cache) == 3
