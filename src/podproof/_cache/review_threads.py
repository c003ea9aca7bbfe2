"""The threads that call the API server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from podproof._cache.fork_local import ForkLocal


def review_threads(count: int) -> ForkLocal[ThreadPoolExecutor]:
    """Return the threads, started when they are needed and made anew in each process, that call the API server."""
    return ForkLocal(lambda: ThreadPoolExecutor(count, thread_name_prefix="podproof"))
