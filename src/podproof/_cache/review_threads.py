"""The threads that call the API server, and who is next: one peer's reviews never keep another's waiting."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from podproof._cache.fork_local import ForkLocal
from podproof.errors import Overloaded, Unavailable

T = TypeVar("T")

MAX_PENDING_PER_THREAD = 64
"""How many reviews may run or wait for each thread that runs them: half a megabyte of the longest tokens."""


class ReviewThreads:
    """Runs calls in the threads of an executor: the peers that have calls waiting take turns.

    A peer may have as many calls running or waiting as there are places left. So a single one gets half of the
    `max_pending` places, two a third each, and so on, and a peer without a call finds a place while there is one (the
    dynamic threshold of Choudhury and Hahne, doi:10.1109/90.664262, as in switches with one memory for all ports).
    """

    def __init__(self, executor: Executor, *, max_pending: int) -> None:
        self._executor = executor
        self._max_pending = max_pending
        self._pending: Counter[str | None] = Counter()
        self._waiting: OrderedDict[str | None, deque[tuple[Future[Any], Callable[[], Any]]]] = OrderedDict()
        self._lock = threading.Lock()

    def submit(self, peer: str | None, call: Callable[[], T]) -> Future[T]:
        """Return the future of a call on behalf of a peer: of whatever name, None for all that have none.

        Raises Overloaded if this peer has its share of calls pending, Unavailable after `shutdown`.
        """
        future: Future[T] = Future()
        with self._lock:
            left = self._max_pending - self._pending.total()
            if self._pending[peer] >= left:
                raise Overloaded(
                    f"{self._pending[peer]} reviews for {peer or 'all callers'} are pending already, and {left} of "
                    f"{self._max_pending} places are left"
                )
            try:
                self._executor.submit(self._run_next)  # which waits for the lock
            except RuntimeError:
                raise Unavailable("this process is shutting down") from None
            self._pending[peer] += 1
            self._waiting.setdefault(peer, deque()).append((future, call))
        return future

    def shutdown(self) -> None:
        """End the threads, when all that is pending has ended."""
        self._executor.shutdown()

    def _run_next(self) -> None:
        with self._lock:
            peer, calls = self._waiting.popitem(last=False)
            future, call = calls.popleft()
            if calls:
                self._waiting[peer] = calls  # behind the other peers
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  it is the waiter's, as in any executor
            self._end(peer)
            future.set_exception(error)
        else:
            self._end(peer)
            future.set_result(result)

    def _end(self, peer: str | None) -> None:
        with self._lock:
            self._pending[peer] -= 1
            if not self._pending[peer]:
                del self._pending[peer]


def review_threads(count: int) -> ForkLocal[ReviewThreads]:
    """Return the threads, started when they are needed and made anew in each process, that call the API server."""
    # Here and not above: it loads five modules, and importing podproof.asgi has to stay light.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    return ForkLocal(
        lambda: ReviewThreads(
            ThreadPoolExecutor(count, thread_name_prefix="podproof"), max_pending=count * MAX_PENDING_PER_THREAD
        )
    )
