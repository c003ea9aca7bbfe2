"""A bounded cache whose entries expire after a fixed time: denied tokens, rate limits, RBAC decisions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, cast

import cachetools

from podproof._telemetry import metrics

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """Values that expire `ttl` seconds after they were put, the least recently used first where there are `size`.

    Times are seconds on the `monotonic` clock. `name` is the label of its metrics.
    """

    def __init__(self, name: str, *, size: int, ttl: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._entries: _CountingCache = _CountingCache(size, ttl, monotonic)
        self._entries.count_eviction = metrics.cache_evictions.labels(name).inc
        self._lock = threading.Lock()
        self._count_hit = metrics.cache_lookups.labels(name, "hit").inc
        self._count_miss = metrics.cache_lookups.labels(name, "miss").inc

    def get(self, key: K) -> V | None:
        """Return a value that has not expired, else None."""
        value = self.peek(key)
        (self._count_miss if value is None else self._count_hit)()
        return value

    def peek(self, key: K) -> V | None:
        """Return the same as `get`, and count nothing."""
        with self._lock:
            return cast("V | None", self._entries.get(key))

    def put(self, key: K, value: V) -> None:
        """Cache a value in the place of an older one."""
        with self._lock:
            self._entries[key] = value

    def update(self, key: K, change: Callable[[V | None], V]) -> None:
        """Replace a value, None if there is none, by what `change` makes of it, at once for all threads."""
        with self._lock:
            self._entries[key] = change(self._entries.get(key))

    def discard(self, key: K) -> None:
        """Remove a value if it is there."""
        with self._lock:
            self._entries.pop(key, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)


class _CountingCache(cachetools.TTLCache[Any, Any]):
    """Counts what is evicted before it has expired: cachetools calls `popitem` where there is no room left."""

    count_eviction: Callable[[], object]

    def popitem(self) -> tuple[Any, Any]:
        item = super().popitem()
        self.count_eviction()
        return item
