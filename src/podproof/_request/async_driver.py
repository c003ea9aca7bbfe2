"""Drives a pipeline's flow on an event loop, asyncio's or trio's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel

from podproof._request.flow import Allowed, Flow


async def run_flow(flow: Flow) -> Allowed:
    """Return what a flow decides, waiting for what it asks for. Raises its PodAuthError."""
    try:
        while True:
            wait = next(flow)
            await wait_for_future(wait.future, wait.seconds)
    except StopIteration as decided:
        allowed: Allowed = decided.value
        return allowed


async def wait_for_future(future: Future[Any], seconds: float) -> None:
    """Wait until a future is done, for so many seconds at most, without a thread. Cancelling us does not cancel it."""
    done = anyio.Event()
    call = _threadsafe_call()

    def wake(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and we with it
            call(done.set)

    future.add_done_callback(wake)
    with anyio.move_on_after(seconds):
        await done.wait()


def _threadsafe_call() -> Callable[[Callable[[], None]], object]:
    """Return what hands a call from any thread to the event loop that runs here: asyncio's or trio's own."""
    loop: Any = anyio.lowlevel.current_token().native_token
    call: Callable[[Callable[[], None]], object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    return call
