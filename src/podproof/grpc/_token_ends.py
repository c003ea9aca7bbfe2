"""Ends calls that run in threads when their callers' tokens expire: one thread, while there are such calls."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from threading import Condition, Thread

from podproof._cache.fork_local import ForkLocal

log = logging.getLogger("podproof")

IDLE = 5.0
"""Seconds without a call after which the thread ends."""

End = Callable[[], object]


class TokenEnds:
    """Calls functions at moments in monotonic seconds, unless they are discarded before."""

    def __init__(self, idle: float = IDLE) -> None:
        self._idle = idle
        self._changed = Condition()
        self._ends: dict[float, set[End]] = {}
        self._next = math.inf
        self._thread: Thread | None = None

    def add(self, moment: float, end: End) -> None:
        """Call a function at a moment, in the thread. It must not block."""
        with self._changed:
            self._ends.setdefault(moment, set()).add(end)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="podproof-token-ends", daemon=True)
                self._thread.start()
            elif moment < self._next:
                self._changed.notify()

    def discard(self, moment: float, end: End) -> None:
        """Do not call a function that was added for a moment."""
        with self._changed:
            ends = self._ends.get(moment)
            if ends is not None:
                ends.discard(end)
                if not ends:
                    del self._ends[moment]

    def _run(self) -> None:
        while (due := self._wait()) is not None:
            for end in due:
                try:
                    end()
                except Exception as error:  # noqa: BLE001  the calls of others still have to end
                    log.error("a call could not be ended with its caller's token: %s", type(error).__name__)

    def _wait(self) -> Iterable[End] | None:
        """Return what is due when something is, None if there has been nothing for a while."""
        with self._changed:
            while True:
                self._next = min(self._ends, default=math.inf)
                left = self._next - time.monotonic()
                if left <= 0:
                    return self._ends.pop(self._next)
                self._changed.wait(min(left, self._idle) if math.isinf(left) else left)
                if math.isinf(left) and not self._ends:
                    self._thread = None
                    return None


token_ends: ForkLocal[TokenEnds] = ForkLocal(TokenEnds)
