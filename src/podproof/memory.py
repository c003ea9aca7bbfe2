"""What was decided, for how long: bounded, expiring, and one flight a token."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import Generic, TypeVar

from podproof import metrics, traces
from podproof.errors import MalformedCredential, Overloaded, Unavailable

K = TypeVar("K")
V = TypeVar("V")

WAITING_PER_FLIGHT = 16
"""How many flights may wait for each one that is in the air, before a further one is refused."""


def token_key(token: str) -> bytes:
    """Return what a token is remembered by: its SHA-256. Tokens themselves are never kept.

    Raises MalformedCredential for a string that no bytes on the wire can make.
    """
    try:
        return sha256(token.encode()).digest()
    except UnicodeEncodeError:
        raise MalformedCredential("the token has characters that no header can hold") from None


class Memory(Generic[K, V]):
    """Values that are forgotten after their time, or when `size` newer ones have come.

    Reading takes no lock. Times are seconds on the `monotonic` clock. `name` is for the metrics.
    """

    def __init__(self, name: str, size: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._size = size
        self._monotonic = monotonic
        self._writing = threading.Lock()
        self._count_hit = metrics.memory_lookups.labels(name, "hit").inc
        self._count_miss = metrics.memory_lookups.labels(name, "miss").inc
        self._count_eviction = metrics.memory_evictions.labels(name).inc

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


class Flights(Generic[K, V]):
    """Work that is done once for all who ask for the same thing at the same time, in `count` threads of its own.

    A flight belongs to none of those who wait for it: when the first one hangs up, the others still get their answer.
    `name` is for the metrics, and for the span that each flight has. Deadlines are seconds on the `monotonic` clock.
    """

    def __init__(self, name: str, count: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._in_flight = metrics.reviews_in_flight.labels(name)
        self._most = count * (1 + WAITING_PER_FLIGHT)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="podproof")
        self._under_way: dict[K, tuple[Future[V], float]] = {}
        self._joining = threading.Lock()

    def join(self, key: K, work: Callable[[], V], deadline: float = math.inf) -> Future[V]:
        """Return the flight that is under way for this key, or start one that does this work by its deadline.

        Past its deadline a flight brings a failure only, of a time that may be over: it is not joined any more, nor is
        one that is about to land.

        Raises Overloaded where too many are waiting, Unavailable after `close`.
        """
        with self._joining:
            flight, end = self._under_way.get(key, (None, 0))
            if flight is not None and not flight.done() and self._monotonic() < end:
                return flight
            if len(self._under_way) >= self._most:
                raise Overloaded(
                    f"{len(self._under_way)} questions of this kind are waiting for the API server already"
                )
            self._in_flight.inc()
            try:
                flight = self._threads.submit(traces.spanned(f"podproof review {self._name}", work))
            except RuntimeError:
                self._in_flight.dec()
                raise Unavailable("this process is ending") from None
            self._under_way[key] = flight, deadline
        flight.add_done_callback(partial(self._land, key))
        return flight

    def _land(self, key: K, flight: Future[V]) -> None:
        self._in_flight.dec()
        with self._joining:
            if self._under_way.get(key, (None, 0))[0] is flight:
                del self._under_way[key]

    def close(self) -> None:
        """Let what is under way finish, start nothing more, and end the threads."""
        self._threads.shutdown()
