"""Hooks by which gunicorn (22 to 27) drains on SIGTERM.

In `gunicorn.conf.py`: `from podproof.drain.gunicorn import *`, or `when_ready, post_worker_init = hooks(gap=10)` for
options other than those of the environment. Without such a file: `-c python:podproof.drain.gunicorn`. A configuration
with a `when_ready` or `post_worker_init` of its own calls these in it.

With `reuse_port` gunicorn's master has no sockets, so a full accept queue goes unseen. An init process in front of
gunicorn must signal gunicorn alone: `dumb-init --single-child`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeAlias, Unpack

from podproof.drain.asgi import DrainedApp
from podproof.drain.listeners import Listener, waiting
from podproof.drain.schedule import stop_at
from podproof.drain.settings import DrainOptions, DrainSettings, settings_from
from podproof.drain.shared_state import SHARED, SharedState

# gunicorn reads every name of this module that is also one of its settings.
__all__ = ["post_worker_init", "when_ready"]

PreRequest: TypeAlias = Callable[[Any, Any], None]


class Master(Protocol):
    """What is asked of gunicorn's Arbiter."""

    log: Any
    reexec_pid: int
    master_pid: int
    worker_age: int
    num_workers: int

    @property
    def LISTENERS(self) -> Sequence[Listener]:  # noqa: N802 (gunicorn's name)
        """The listening sockets."""

    def signal(self, signum: int, frame: Any, /) -> None:
        """Queue a signal for the main loop."""

    def handle_term(self) -> NoReturn:
        """Raise StopIteration, which ends the main loop gracefully."""


def set_alarm(seconds: float) -> None:
    """Send this process SIGALRM after so many seconds; 0 for never."""
    # Then each second: gunicorn 22 and 23 forget a signal when five others wait.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)


class Drain:
    """SIGTERM as gunicorn's master handles it: the first begins the drain, its end or a second one stops the server.

    The master's loop calls `handle_<signal>` by name, outside of any signal handler, so that these may log. What waits
    is an alarm, not a thread, which could die.
    """

    def __init__(
        self,
        master: Master,
        settings: DrainSettings,
        stamps: SharedState,
        *,
        clock: Callable[[], float] = time.monotonic,
        set_alarm: Callable[[float], None] = set_alarm,
    ) -> None:
        self._master = master
        self._settings = settings
        self._stamps = stamps
        self._clock = clock
        self._set_alarm = set_alarm
        self._stop_master = master.handle_term
        self._age = 0

    def handle_term(self) -> None:
        """Begin the drain; stop if it has begun, or if another master serves the same sockets (SIGUSR2)."""
        if self._stamps.draining:
            self._stop("a second SIGTERM")
        if self._master.reexec_pid or self._predecessor_lives():
            self._stop("another master serves on")
        self._age = self._master.worker_age
        self._stamps.since = self._clock()
        self._master.log.info(
            "Draining until no request has come for %g s, at most %g s", self._settings.gap, self._settings.longest
        )
        signal.signal(signal.SIGALRM, self._master.signal)
        self.handle_alrm()

    def handle_alrm(self) -> None:
        """Stop if it is time, else wait for the moment at which it may be."""
        try:
            left = self._left()
        except Exception:
            # A pod that never ends is worse than one that ends early.
            self._master.log.exception("The drain failed")
            self._stop("the drain failed")
        if left > 0:
            self._set_alarm(left)
        else:
            self._stop(f"drained for {self._clock() - self._stamps.since:.1f} s")

    def _left(self) -> float:
        now = self._clock()
        if self._master.worker_age - self._age >= self._master.num_workers:
            self._age = self._master.worker_age
            self._master.log.warning(
                "Workers ended while draining and were replaced. If they got the SIGTERM too, "
                "make the init process signal gunicorn alone (dumb-init --single-child)"
            )
        if not self._stamps.stamped:
            self._master.log.warning("No worker stamps its requests: is post_worker_init overridden?")
        busy = any(waiting(listener) for listener in self._master.LISTENERS)
        arrived = now if busy or not self._stamps.stamped else self._stamps.arrived
        return stop_at(self._settings, since=self._stamps.since, arrived=arrived) - now

    def _predecessor_lives(self) -> bool:
        # gunicorn forgets a predecessor that has ended up to a second late. PID 1 has the parent 0.
        return self._master.master_pid != 0 and self._master.master_pid == os.getppid()

    def _stop(self, why: str) -> NoReturn:
        self._set_alarm(0.0)
        self._master.log.info("Stopping: %s", why)
        self._stop_master()


def stamping(
    then: PreRequest, settings: DrainSettings, stamps: SharedState, clock: Callable[[], float] = time.monotonic
) -> PreRequest:
    """Return a `pre_request` hook that stamps requests and closes their connections, if draining, before `then`."""

    def pre_request(worker: Any, request: Any) -> None:
        if stamps.draining:
            agent = next((value for name, value in request.headers if name == "USER-AGENT"), "")
            if settings.counts(request.path, agent):
                stamps.arrived = clock()
            # gunicorn drops an app's own Connection header, and its asgi worker's requests have no force_close().
            request.must_close = True
        then(worker, request)

    return pre_request


def join(worker: Any, settings: DrainSettings, stamps: SharedState) -> None:
    """Make a worker, its app loaded, take part in the drain."""
    kinds = {kind.__name__ for kind in type(worker).__mro__}
    if "ASGIWorker" in kinds:
        app = worker.asgi = DrainedApp(worker.asgi, settings, stamps=stamps)
        leaving: list[object] = []  # asyncio keeps no reference to a task

        def on_sigterm() -> None:
            worker.handle_exit_signal()
            leaving.append(worker.loop.create_task(app.leave_websockets()))

        # This worker would wait for open WebSockets until graceful_timeout, then cut them; uvicorn's closes them.
        worker.loop.add_signal_handler(signal.SIGTERM, on_sigterm)
    elif "UvicornWorker" in kinds:
        worker.wsgi = DrainedApp(worker.wsgi, settings, stamps=stamps)
    worker.cfg.set("pre_request", stamping(worker.cfg.pre_request, settings, stamps))
    stamps.promise()


def hooks(**options: Unpack[DrainOptions]) -> tuple[Callable[[Any], None], Callable[[Any], None]]:
    """Return `when_ready` and `post_worker_init` with these options of `DrainSettings`.

    Options not given are read from `PODPROOF_DRAIN_*`. Raises ValueError for bad ones.
    """
    settings = settings_from(**options)

    def when_ready(server: Any) -> None:
        drain = Drain(server, settings, SHARED)
        server.handle_term = drain.handle_term
        server.handle_alrm = drain.handle_alrm

    def post_worker_init(worker: Any) -> None:
        join(worker, settings, SHARED)

    return when_ready, post_worker_init


when_ready, post_worker_init = hooks()
