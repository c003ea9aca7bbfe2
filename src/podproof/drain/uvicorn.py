"""uvicorn, alone or with `--workers`: an ASGI middleware that takes SIGTERM over when the app starts.

`app.add_middleware(DrainMiddleware)`, or `app = DrainMiddleware(app)` around any ASGI app; outermost. It begins with
the lifespan, so `--lifespan off` leaves it out.

With `--workers` each worker drains by itself. uvicorn's parent process passes only the first SIGTERM on and is deaf to
a second one; `python -m podproof.drain.uvicorn` is the `uvicorn` command with that mended. A SIGHUP, which replaces the
workers one by one, waits for each one's drain: `max` seconds under traffic.

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
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Unpack

from podproof.drain.asgi import App, DrainedApp, Receive, Scope, Send
from podproof.drain.schedule import stop_at
from podproof.drain.settings import DrainOptions, DrainSettings, settings_from
from podproof.drain.shared_state import SHARED, SharedState

# uvicorn's own logger, the one that its logging configuration shows.
logger = logging.getLogger("uvicorn.error")

# Seconds: after a blocked moment an event loop runs late timers before the requests that came meanwhile.
CONFIRM = 0.05


class DrainMiddleware(DrainedApp):
    """`app`, draining on the first SIGTERM; after the drain, or on a second SIGTERM, uvicorn shuts down gracefully.

    Options as of `DrainSettings`; those not given are read from `PODPROOF_DRAIN_*`. Raises ValueError for bad ones.
    """

    def __init__(
        self,
        app: App,
        *,
        stamps: SharedState = SHARED,
        clock: Callable[[], float] = time.monotonic,
        **options: Unpack[DrainOptions],
    ) -> None:
        super().__init__(app, settings_from(**options), stamps=stamps, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan (ASGI 3); take SIGTERM over with the last."""
        if scope["type"] == "lifespan":
            if threading.current_thread() is threading.main_thread():
                Drain(asyncio.get_running_loop(), self.settings, self.stamps, clock=self.clock).take_over()
            else:
                logger.warning("No drain: signals do not reach a server outside of the main thread")
        await super().__call__(scope, receive, send)


class Drain:
    """SIGTERM as a process handles it: the first begins the drain, its end or a second one goes to the handler before.

    What waits is a timer of the loop that serves, not a thread, which could die.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: DrainSettings,
        stamps: SharedState,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._stamps = stamps
        self._clock = clock
        self._pid = os.getpid()
        self._before = signal.getsignal(signal.SIGTERM)
        self._stopped = False

    def take_over(self) -> None:
        """Handle SIGTERM from now on. Raises ValueError outside of the main thread."""
        signal.signal(signal.SIGTERM, self.handle)

    def handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's signature)
        """Begin the drain; stop if it has begun, or in a process that the app forked: this is not its server."""
        if self._stamps.draining or os.getpid() != self._pid:
            self._stop()
        else:
            self._stamps.since = self._clock()
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        logger.info(
            "Draining until no request has come for %g s, at most %g s", self._settings.gap, self._settings.longest
        )
        self._tick(sure=False)

    def _tick(self, *, sure: bool) -> None:
        try:
            left = stop_at(self._settings, since=self._stamps.since, arrived=self._stamps.arrived) - self._clock()
        except Exception:
            # A pod that never ends is worse than one that ends early.
            logger.exception("The drain failed")
            self._stop()
            return
        if left > 0:
            self._loop.call_later(left, lambda: self._tick(sure=False))
        elif not sure:
            self._loop.call_later(CONFIRM, lambda: self._tick(sure=True))
        else:
            logger.info("Stopping: drained for %.1f s", self._clock() - self._stamps.since)
            self._stop()

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        signal.signal(signal.SIGTERM, self._before)
        signal.raise_signal(signal.SIGTERM)


def pass_on_sigterm() -> None:
    """Pass each SIGTERM after the first on to the processes that this one has started.

    uvicorn's parent process waits for its workers without a look at its signals. A wake-up descriptor hears of each
    signal all the same, whoever handles it.
    """
    heard, tell = socket.socketpair()
    tell.setblocking(False)  # noqa: FBT003 (it takes no keyword)
    signal.set_wakeup_fd(tell.detach(), warn_on_full_buffer=False)

    def listen() -> None:
        count = 0
        while True:
            count += heard.recv(64).count(signal.SIGTERM)
            if count > 1:
                for child in multiprocessing.active_children():
                    child.terminate()

    threading.Thread(target=listen, daemon=True, name="podproof-sigterm").start()


if __name__ == "__main__":
    import uvicorn

    pass_on_sigterm()
    uvicorn.main()
