"""Whether the API server is away: callers that are known already do not wait for it then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from podproof.errors import Unavailable

PATIENCE = 0.5
"""Seconds without a response after which known callers do not wait for one: else a hanging API server would fill the
queue with them, before the first attempt has failed."""

RETRY_INTERVAL = 5.0
"""Seconds between two attempts to ask the API server on behalf of known callers, once one has failed."""


class Outage:
    """Begins when the API server does not answer about a known caller, ends when it answers about anybody."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failing = False
        self._retry_at = 0.0
        self._asking: dict[object, float] = {}  # since when
        self._lock = threading.Lock()

    @property
    def ongoing(self) -> bool:
        """True if the last attempt has failed, or one is without a response for longer than PATIENCE."""
        if self._failing:
            return True
        with self._lock:
            oldest = min(self._asking.values(), default=None)
        return oldest is not None and self._monotonic() - oldest > PATIENCE

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask within this. Its failure counts if it was about a known caller: see `begin`."""
        attempt = object()
        with self._lock:
            self._asking[attempt] = self._monotonic()
        answered = True
        try:
            yield
        except Unavailable:
            answered = False
            raise
        finally:
            with self._lock:
                del self._asking[attempt]
                self._failing = self._failing and not answered

    def begin(self) -> None:
        """Note that the API server could not be asked about a known caller."""
        with self._lock:
            self._failing, self._retry_at = True, self._monotonic() + RETRY_INTERVAL

    def take_turn(self) -> bool:
        """Return True for one attempt to ask, each RETRY_INTERVAL."""
        with self._lock:
            if self._monotonic() < self._retry_at:
                return False
            self._retry_at = self._monotonic() + RETRY_INTERVAL
            return True
