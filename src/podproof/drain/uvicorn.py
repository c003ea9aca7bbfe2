"""uvicorn, alone or with `--workers`: an ASGI middleware that takes SIGTERM over when the app starts.

`app.add_middleware(DrainMiddleware)`, or `app = DrainMiddleware(app)` around any ASGI app; outermost. It begins with
the lifespan, so `--lifespan off` leaves it out. Under `--reload` there is no drain: the reloader would wait for it
before it serves new code.

With `--workers` each worker drains by itself. uvicorn's parent process passes only the first SIGTERM on and ignores a
second one; `python -m podproof.drain.uvicorn` is the `uvicorn` command with that corrected. A SIGHUP, which replaces
the workers one by one, waits for each one's drain: `max` seconds under traffic.

Under gunicorn use its hooks, whatever the worker class. hypercorn and granian are not supported: their commands stop
the workers through a shared flag or from native code, with no hook in which an app could ask them to wait.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Unpack

from podproof.drain.asgi import App, DrainedApp, Receive, Scope, Send
from podproof.drain.settings import DrainOptions, DrainSettings, read_drain_settings
from podproof.drain.shared_state import SHARED_STATE, SharedState

__all__ = ["DrainMiddleware"]

# uvicorn's own logger, the one that its logging configuration shows.
logger = logging.getLogger("uvicorn.error")

# Seconds: after a blocked moment an event loop runs late timers before the requests that came meanwhile.
CONFIRM = 0.05


class DrainMiddleware(DrainedApp):
    """`app`, draining on the first SIGTERM; after the drain, or on a second SIGTERM, uvicorn shuts down gracefully.

    Options as of `DrainSettings`; those not given are read from `PODPROOF_DRAIN_*`. Raises ValueError for invalid
    ones; within a running event loop the lifespan's startup fails with that message instead.
    """

    def __init__(
        self,
        app: App,
        *,
        state: SharedState = SHARED_STATE,
        clock: Callable[[], float] = time.monotonic,
        **options: Unpack[DrainOptions],
    ) -> None:
        self._invalid_option: ValueError | None = None
        try:
            settings = read_drain_settings(**options)
        except ValueError as error:
            # Starlette makes its middleware in the lifespan's first call. uvicorn takes an exception there for an app
            # that has no lifespan, and starts.
            if not _is_in_event_loop():
                raise
            self._invalid_option, settings = error, DrainSettings()
        super().__init__(app, settings, state=state, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan (ASGI 3); take SIGTERM over with the last."""
        if self._invalid_option is not None:
            if scope["type"] != "lifespan":
                raise self._invalid_option
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self._invalid_option)})
            return
        if scope["type"] == "lifespan":
            reason = _why_no_drain()
            if reason is None:
                UvicornDrain(asyncio.get_running_loop(), self.settings, self.state, clock=self.clock).take_over()
            else:
                logger.info("No drain: %s", reason)
        await super().__call__(scope, receive, send)


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _why_no_drain() -> str | None:
    """Return why SIGTERM is left to the server; None if it is not."""
    if sys.platform == "win32":
        return "Windows sends no SIGTERM"
    if threading.current_thread() is not threading.main_thread():
        return "signals do not reach a server outside of the main thread"
    # uvicorn.Server.handle_exit. Its supervisors ChangeReload and Multiprocess both stop their children by SIGTERM.
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if getattr(getattr(server, "config", None), "should_reload", False):
        return "a server under --reload stops at once"
    return None


class UvicornDrain:
    """SIGTERM as a process handles it: the first begins the drain, its end or a second one goes to the handler before.

    A timer of the loop that serves ends the drain, not a thread, which could die.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: DrainSettings,
        state: SharedState,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._state = state
        self._clock = clock
        self._pid = os.getpid()
        self._previous_handler = signal.getsignal(signal.SIGTERM)
        self._stopped = False

    def take_over(self) -> None:
        """Handle SIGTERM from now on. Raises ValueError outside of the main thread."""
        signal.signal(signal.SIGTERM, self.handle_sigterm)

    def handle_sigterm(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's signature)
        """Begin the drain; stop if it has begun, or in a process that the app forked: this is not its server."""
        if self._state.draining or os.getpid() != self._pid:
            self._stop()
        else:
            self._state.drain_started = self._clock()
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        logger.info(
            "Draining until no request has arrived for %g s, at most %g s",
            self._settings.idle_timeout,
            self._settings.time_limit,
        )
        self._stop_if_due(confirmed=False)

    def _stop_if_due(self, *, confirmed: bool) -> None:
        try:
            stop_time = self._settings.stop_time(
                drain_started=self._state.drain_started, last_request=self._state.last_request
            )
            seconds_left = stop_time - self._clock()
        except Exception:
            # A pod that never ends is worse than one that ends early.
            logger.exception("The drain failed")
            self._stop()
            return
        if seconds_left > 0:
            self._loop.call_later(seconds_left, lambda: self._stop_if_due(confirmed=False))
        elif not confirmed:
            self._loop.call_later(CONFIRM, lambda: self._stop_if_due(confirmed=True))
        else:
            logger.info("Stopping: drained for %.1f s", self._clock() - self._state.drain_started)
            self._stop()

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        signal.signal(signal.SIGTERM, self._previous_handler)
        signal.raise_signal(signal.SIGTERM)


def forward_sigterm() -> None:
    """Send each SIGTERM after the first on to the processes that this one has started.

    uvicorn's parent process waits for its workers without a look at its signals. A wake-up descriptor receives each
    signal all the same, whoever handles it.
    """
    received, wakeup = socket.socketpair()
    wakeup.setblocking(False)  # noqa: FBT003 (it takes no keyword)
    signal.set_wakeup_fd(wakeup.detach(), warn_on_full_buffer=False)

    def forward() -> None:
        count = 0
        while True:
            count += received.recv(64).count(signal.SIGTERM)
            if count > 1:
                for child in multiprocessing.active_children():
                    child.terminate()

    threading.Thread(target=forward, daemon=True, name="podproof-sigterm").start()


if __name__ == "__main__":
    import uvicorn

    forward_sigterm()
    uvicorn.main()
