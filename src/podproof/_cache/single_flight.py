"""One call for all who wait for the same thing at the same time, after Go's golang.org/x/sync/singleflight."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Generic, TypeVar

from podproof._telemetry import metrics, traces
from podproof.errors import Overloaded, Unavailable

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Calls that are shared by all who wait for the same key, in the threads of an executor.

    Cancelling one waiter does not cancel the call for the others. At most `max_pending` calls run or wait to run.
    `name` is the label of its metrics and the name of its spans. Deadlines are seconds on the `monotonic` clock.
    """

    def __init__(
        self, name: str, executor: Executor, *, max_pending: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._executor = executor
        self._max_pending = max_pending
        self._monotonic = monotonic
        self._in_flight = metrics.reviews_in_flight.labels(name)
        self._pending: dict[K, tuple[Future[V], float]] = {}
        self._lock = threading.Lock()

    def submit(self, key: K, call: Callable[[], V], deadline: float = math.inf) -> Future[V]:
        """Return the future of the call that is pending for this key, or of this one, which must end by its deadline.

        A pending call is not shared once its deadline has passed or its result is there: the result would be a failure,
        or older than the request.

        Raises Overloaded if too many calls are pending, Unavailable after the executor was shut down.
        """
        with self._lock:
            future, end = self._pending.get(key, (None, 0))
            if future is not None and not future.done() and self._monotonic() < end:
                return future
            if len(self._pending) >= self._max_pending:
                raise Overloaded(f"{len(self._pending)} reviews of this kind are pending already")
            self._in_flight.inc()
            try:
                future = self._executor.submit(traces.with_span(f"podproof review {self._name}", call))
            except RuntimeError:
                self._in_flight.dec()
                raise Unavailable("this process is shutting down") from None
            self._pending[key] = future, deadline
        future.add_done_callback(partial(self._on_done, key))
        return future

    def _on_done(self, key: K, future: Future[V]) -> None:
        self._in_flight.dec()
        with self._lock:
            if self._pending.get(key, (None, 0))[0] is future:
                del self._pending[key]
