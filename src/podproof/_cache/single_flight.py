"""One call for all who wait for the same thing at the same time, after Go's golang.org/x/sync/singleflight."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

from podproof._cache.review_threads import ReviewThreads
from podproof._telemetry import metrics, traces
from podproof.errors import PodAuthError

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Calls that are shared by all who wait for the same key.

    Cancelling one waiter does not cancel the call for the others. `name` is the label of its metrics and the name of
    its spans. Deadlines are seconds on the `monotonic` clock.
    """

    def __init__(self, name: str, threads: ReviewThreads, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._threads = threads
        self._monotonic = monotonic
        self._in_flight = metrics.reviews_in_flight.labels(name)
        self._pending: dict[K, tuple[Future[V], float]] = {}
        self._lock = threading.Lock()

    def submit(
        self, key: K, call: Callable[[], V], deadline: float = math.inf, *, peer: str | None = None
    ) -> Future[V]:
        """Return the future of the call that is pending for this key, or of this one, which must end by its deadline.

        A pending call is not shared once its deadline has passed or its result is there: the result would be a failure,
        or older than the request. A call counts towards the share of the `peer` that comes first.

        Raises Overloaded or Unavailable, as `ReviewThreads.submit`.
        """
        with self._lock:
            future, end = self._pending.get(key, (None, 0))
            if future is not None and not future.done() and self._monotonic() < end:
                return future
            self._in_flight.inc()
            try:
                future = self._threads.submit(peer, traces.with_span(f"podproof review {self._name}", call))
            except PodAuthError:
                self._in_flight.dec()
                raise
            self._pending[key] = future, deadline
        future.add_done_callback(partial(self._on_done, key))
        return future

    def _on_done(self, key: K, future: Future[V]) -> None:
        self._in_flight.dec()
        with self._lock:
            if self._pending.get(key, (None, 0))[0] is future:
                del self._pending[key]
