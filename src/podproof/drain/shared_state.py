"""The moments that a server's processes share: what workers stamp, the process that waits reads."""

from __future__ import annotations

import mmap


class SharedState:
    """Moments in anonymous memory shared with every process forked later, in seconds of the monotonic clock.

    Linux has one monotonic clock for all processes. Each moment is one aligned double, so that a reader never sees
    half of one; writers race only with writers of the same moment. No lock: a worker may die at any time.
    """

    def __init__(self) -> None:
        self._moments = memoryview(mmap.mmap(-1, 3 * 8)).cast("d")

    @property
    def arrived(self) -> float:
        """When the last request that counts arrived; 0.0 if none did since the drain began."""
        return self._moments[0]

    @arrived.setter
    def arrived(self, moment: float) -> None:
        self._moments[0] = moment

    @property
    def since(self) -> float:
        """When the drain began; 0.0 before."""
        return self._moments[1]

    @since.setter
    def since(self, moment: float) -> None:
        self._moments[1] = moment

    @property
    def draining(self) -> bool:
        """Whether the drain has begun."""
        return self._moments[1] > 0.0

    @property
    def stamped(self) -> bool:
        """Whether some process has promised to stamp its requests."""
        return self._moments[2] > 0.0

    def promise(self) -> None:
        """Promise that this process stamps its requests."""
        self._moments[2] = 1.0


# One for a process and all it forks: the hooks, the wrapped app and its readiness must mean the same drain.
SHARED = SharedState()


def is_draining() -> bool:
    """Return whether this server drains: a readiness check answers 503 then."""
    return SHARED.draining
