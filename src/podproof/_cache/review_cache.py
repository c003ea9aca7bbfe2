"""Reviews by the API server: one call at a time for each question, its result cached, a failure never."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, Protocol, TypeVar, overload

from podproof._cache.review_threads import ReviewThreads
from podproof._cache.single_flight import SingleFlight
from podproof._cache.ttl_cache import TTLCache
from podproof.errors import PodAuthError, Unavailable

V = TypeVar("V")


class ResultCache(Protocol[V]):
    """The cache of positive results."""

    def get(self, key: bytes) -> V | None:
        """Return a result that has not expired, else None."""

    def peek(self, key: bytes) -> V | None:
        """Return the same, and count nothing."""

    def put(self, key: bytes, value: V, /) -> None:
        """Cache a result."""

    def discard(self, key: bytes) -> None:
        """Remove a result."""


class ReviewCache(Generic[V]):
    """The results of one kind of review: positive ones in `allowed`, PodAuthErrors in `denied`.

    Where the API server cannot be asked, nothing is cached: `Unavailable` is about us, not about what was asked.
    """

    def __init__(
        self,
        name: str,
        threads: ReviewThreads,
        *,
        allowed: ResultCache[V],
        denied: TTLCache[bytes, PodAuthError],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.allowed = allowed
        self._denied = denied
        self._monotonic = monotonic
        self._calls: SingleFlight[bytes, V | PodAuthError] = SingleFlight(name, threads, monotonic=monotonic)

    def get(self, key: bytes) -> V | None:
        """Return a cached positive result, None if there is no result. Raises a cached denial."""
        value = self.allowed.get(key)
        if value is None:
            self.raise_if_denied(key)
        return value

    def raise_if_denied(self, key: bytes) -> None:
        """Raise a cached denial."""
        denial = self._denied.get(key)
        if denial is not None:
            raise denial.without_traceback()

    def submit(
        self, key: bytes, review: Callable[[], V], deadline: float, *, peer: str | None
    ) -> Future[V | PodAuthError]:
        """Return the future of a review, whose result is a value or a PodAuthError. It never raises.

        `review` returns the value or raises a PodAuthError. `deadline` is in monotonic seconds. `peer` is who it is
        for.

        Raises Overloaded or Unavailable, as `SingleFlight.submit`.
        """
        return self._calls.submit(key, partial(self._run, key, review, deadline), deadline, peer=peer)

    def _run(self, key: bytes, review: Callable[[], V], deadline: float) -> V | PodAuthError:
        if self._monotonic() >= deadline:
            return Unavailable("no thread was free to ask the API server before the deadline")
        return self.decide(key, review)

    @overload
    def decide(self, key: bytes, review: Callable[[], V]) -> V | PodAuthError: ...
    @overload
    def decide(self, key: bytes, review: Callable[[], V | None]) -> V | PodAuthError | None: ...
    def decide(self, key: bytes, review: Callable[[], V | None]) -> V | PodAuthError | None:
        """Return the result of a review in this thread; None, which is not cached, if it has none. It never raises."""
        try:
            value = review()
        except Unavailable as failure:
            return failure
        except PodAuthError as denial:
            self.allowed.discard(key)
            # Without its traceback, whose frames hold the token.
            self._denied.put(key, denial.without_traceback())
            return denial
        except Exception as error:  # noqa: BLE001  an error in our own code must deny, not crash
            return Unavailable.unexpected(error)
        if value is not None:
            self.allowed.put(key, value)
        return value
