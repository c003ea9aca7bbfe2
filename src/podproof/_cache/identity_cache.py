"""The cache of known callers. Its lookup is on the path of every request, so it takes no lock and makes no copy.

`cachetools` holds every other cache: its lookup is Python code that needs a lock, and takes several times as long as
this one (`make bench`, the rows of the lookup).
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from cachetools import LRUCache

from podproof._telemetry import metrics

MAX_CHANGES = 10_000
"""How many pods' last changes are kept, so that what was read before a change is not cached after it."""


class PodEntry(Protocol):
    """What can be cached here: what was read about a pod. Times are in monotonic seconds."""

    @property
    def cached_until(self) -> float:
        """The moment at which it expires."""

    @property
    def read_at(self) -> float:
        """The moment before which the pod was not yet read."""

    @property
    def pod_uid(self) -> str:
        """The pod that it is about."""


E = TypeVar("E", bound=PodEntry)


class IdentityCache(Generic[E]):
    """Up to `size` entries by key, each until its `cached_until` or its pod's next change; the oldest is evicted first.

    A pod may have several entries: its tokens are rotated.
    """

    def __init__(self, size: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._entries: OrderedDict[bytes, E] = OrderedDict()
        self._keys: dict[str, dict[bytes, None]] = {}  # of each pod, the newest last
        self._changes: LRUCache[str, float] = LRUCache(MAX_CHANGES)
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

    def last(self, key: bytes) -> E | None:
        """Return an entry that may have expired, None if it was removed, or is not there any more."""
        return self._entries.get(key)

    def last_of_pod(self, uid: str) -> E | None:
        """Return a pod's newest entry, which may have expired, None as `last`."""
        with self._writing:
            keys = self._keys.get(uid)
            return self._entries[next(reversed(keys))] if keys else None

    def put(self, key: bytes, entry: E) -> None:
        """Cache an entry in the place of an older one, unless its pod has changed since it was read."""
        with self._writing:
            if self._changes.get(entry.pod_uid, -math.inf) >= entry.read_at:
                return
            self._remove(key)
            if len(self._entries) >= self._size:
                evicted = self._remove(next(iter(self._entries)))
                if evicted is not None and self._monotonic() < evicted.cached_until:
                    self._count_eviction()
            self._entries[key] = entry
            self._keys.setdefault(entry.pod_uid, {})[key] = None

    def discard(self, key: bytes) -> None:
        """Remove an entry if it is there."""
        with self._writing:
            self._remove(key)

    def discard_pod(self, uid: str) -> None:
        """Remove all entries of a pod that has changed, and do not cache what was read before."""
        with self._writing:
            self._changes[uid] = self._monotonic()
            for key in self._keys.pop(uid, ()):
                del self._entries[key]

    def _remove(self, key: bytes) -> E | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            keys = self._keys[entry.pod_uid]
            del keys[key]
            if not keys:
                del self._keys[entry.pod_uid]
        return entry

    def __len__(self) -> int:
        return len(self._entries)
