"""One call for all who ask for the same thing at the same time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from podproof._telemetry import metrics, traces
from podproof.errors import Overloaded, Unavailable

K = TypeVar("K")
V = TypeVar("V")

MAX_WAITING_PER_THREAD = 16
"""How many flights may wait for each one that is in the air, before a further one is refused."""


class SingleFlight(Generic[K, V]):
    """Work that is done once for all who ask for the same thing at the same time, in `count` threads of its own.

    A flight belongs to none of those who wait for it: when the first one hangs up, the others still get their answer.
    `name` is for the metrics, and for the span that each flight has. Deadlines are seconds on the `monotonic` clock.
    """

    def __init__(self, name: str, count: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._in_flight = metrics.reviews_in_flight.labels(name)
        self._most = count * (1 + MAX_WAITING_PER_THREAD)
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
                flight = self._threads.submit(traces.with_span(f"podproof review {self._name}", work))
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
