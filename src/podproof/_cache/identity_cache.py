"""The cache of known callers. Its lookup is on the path of every request, so it takes no lock and makes no copy.

`cachetools` holds every other cache: its lookup is Python code that needs a lock, and takes several times as long as
this one (`make bench`, the rows of the lookup).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from podproof._telemetry import metrics


class Expiring(Protocol):
    """What can be cached here: it knows the moment until which it may be used, in monotonic seconds."""

    @property
    def cached_until(self) -> float:
        """The moment at which it expires."""


E = TypeVar("E", bound=Expiring)


class IdentityCache(Generic[E]):
    """Up to `size` entries by key, each until its `cached_until`; the oldest is evicted first."""

    def __init__(self, size: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._entries: OrderedDict[bytes, E] = OrderedDict()
        self._size = size
        self._monotonic = monotonic
        self._writing = threading.Lock()
        self.count_hit: Callable[[], object] = metrics.cache_lookups.labels("identity", "hit").inc
        self._count_miss = metrics.cache_lookups.labels("identity", "miss").inc
        self._count_eviction = metrics.cache_evictions.labels("identity").inc

    def get(self, key: bytes) -> E | None:
        """Return an entry that has not expired, else None."""
        entry = self.peek(key)
        (self._count_miss if entry is None else self.count_hit)()
        return entry

    def peek(self, key: bytes) -> E | None:
        """Return the same as `get`, and count nothing."""
        try:
            entry = self._entries[key]  # not .get(), which looks twice: another thread may evict it in between
        except KeyError:
            return None
        return entry if self._monotonic() < entry.cached_until else None

    def put(self, key: bytes, entry: E) -> None:
        """Cache an entry in the place of an older one."""
        with self._writing:
            self._entries.pop(key, None)
            if len(self._entries) >= self._size:
                _, evicted = self._entries.popitem(last=False)
                if self._monotonic() < evicted.cached_until:
                    self._count_eviction()
            self._entries[key] = entry

    def discard(self, key: bytes) -> None:
        """Remove an entry if it is there."""
        with self._writing:
            self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)
