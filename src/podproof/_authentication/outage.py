"""Whether the API server is away: callers that are known already do not wait for it then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RETRY_INTERVAL = 5.0
"""Seconds between two attempts to ask the API server on behalf of known callers, once one has failed."""


class Outage:
    """Begins when the API server could not be asked about a known caller, ends when it was asked about anybody."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.ongoing = False
        self._monotonic = monotonic
        self._retry_at = 0.0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Note that the API server could not be asked."""
        with self._lock:
            self.ongoing, self._retry_at = True, self._monotonic() + RETRY_INTERVAL

    def end(self) -> None:
        """Note that the API server has answered."""
        self.ongoing = False

    def take_turn(self) -> bool:
        """Return True for one attempt to ask, each RETRY_INTERVAL."""
        with self._lock:
            if self._monotonic() < self._retry_at:
                return False
            self._retry_at = self._monotonic() + RETRY_INTERVAL
            return True
