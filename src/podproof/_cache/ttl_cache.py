"""What was decided, for how long: bounded, expiring, and one flight a token."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Generic, TypeVar

from podproof._telemetry import metrics
from podproof.errors import MalformedCredential

K = TypeVar("K")
V = TypeVar("V")


def token_key(token: str) -> bytes:
    """Return what a token is remembered by: its SHA-256. Tokens themselves are never kept.

    Raises MalformedCredential for a string that no bytes on the wire can make.
    """
    try:
        return sha256(token.encode()).digest()
    except UnicodeEncodeError:
        raise MalformedCredential("the token has characters that no header can hold") from None


class TTLCache(Generic[K, V]):
    """Values that are forgotten after their time, or when `size` newer ones have come.

    Reading takes no lock. Times are seconds on the `monotonic` clock. `name` is for the metrics.
    """

    def __init__(self, name: str, size: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._size = size
        self._monotonic = monotonic
        self._writing = threading.Lock()
        self._count_hit = metrics.cache_lookups.labels(name, "hit").inc
        self._count_miss = metrics.cache_lookups.labels(name, "miss").inc
        self._count_eviction = metrics.cache_evictions.labels(name).inc

    def get(self, key: K) -> V | None:
        """Return what is remembered, None where there is nothing or its time is over."""
        try:
            end, value = self._values[key]  # not .get(), which looks twice: another thread may forget it in between
            if self._monotonic() < end:
                self._count_hit()
                return value
        except KeyError:
            pass
        self._count_miss()
        return None

    def peek(self, key: K) -> V | None:
        """Do as `get`, without being counted."""
        try:
            end, value = self._values[key]
        except KeyError:
            return None
        return value if self._monotonic() < end else None

    def put(self, key: K, value: V, seconds: float) -> None:
        """Remember a value for so many seconds."""
        with self._writing:
            self._values.pop(key, None)
            now = self._monotonic()
            if len(self._values) >= self._size:
                _, (end, _) = self._values.popitem(last=False)
                if now < end:
                    self._count_eviction()
            self._values[key] = (now + seconds, value)

    def forget(self, key: K) -> None:
        """Forget a value at once."""
        with self._writing:
            self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)
