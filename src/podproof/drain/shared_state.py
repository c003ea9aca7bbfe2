"""The state of a drain that a server's processes share: workers write when requests arrive, the master reads it."""

from __future__ import annotations

import mmap

__all__ = ["SHARED_STATE", "SharedState", "is_draining"]


class SharedState:
    """Times in anonymous memory shared with every process forked later, in seconds of the monotonic clock.

    Linux and macOS have one monotonic clock for all processes. Each time is one aligned double, so that a reader never
    sees half of one; writers race only with writers of the same time. No lock: a worker may die at any time.
    """

    def __init__(self) -> None:
        self._times = memoryview(mmap.mmap(-1, 3 * 8)).cast("d")

    @property
    def last_request(self) -> float:
        """When the last request that counts arrived; 0.0 if none has since the drain began."""
        return self._times[0]

    @last_request.setter
    def last_request(self, time: float) -> None:
        self._times[0] = time

    @property
    def drain_started(self) -> float:
        """When the drain began; 0.0 before."""
        return self._times[1]

    @drain_started.setter
    def drain_started(self, time: float) -> None:
        self._times[1] = time

    @property
    def draining(self) -> bool:
        """Whether the drain has begun."""
        return self._times[1] > 0.0

    @property
    def instrumented(self) -> bool:
        """Whether at least one process records its requests here."""
        return self._times[2] > 0.0

    def mark_instrumented(self) -> None:
        """Record that this process records its requests here."""
        self._times[2] = 1.0


# One for a process and all that it forks: the hooks, the wrapped app and the readiness endpoint share one drain.
SHARED_STATE = SharedState()


def is_draining() -> bool:
    """Return True while this server drains: a readiness probe is then to get 503."""
    return SHARED_STATE.draining
