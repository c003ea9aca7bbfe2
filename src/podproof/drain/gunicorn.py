"""Hooks by which gunicorn (22 to 27) drains on SIGTERM.

In `gunicorn.conf.py`: `from podproof.drain.gunicorn import *`, or `when_ready, post_worker_init = hooks(...)` for
options other than those of the environment. Without such a file: `-c python:podproof.drain.gunicorn`. A configuration
with a `when_ready` or `post_worker_init` of its own calls these in it.

With `reuse_port` gunicorn's master has no sockets, so it does not see connections in the accept queue; nor does it on
macOS, whose sockets do not tell. An init process in front of gunicorn must signal gunicorn alone:
`dumb-init --single-child`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeAlias, Unpack

from podproof.drain.accept_queue import ListeningSocket, accept_queue_length, can_read_accept_queue
from podproof.drain.asgi import DrainedApp
from podproof.drain.settings import DrainOptions, DrainSettings, read_drain_settings
from podproof.drain.shared_state import SHARED_STATE, SharedState

# gunicorn reads every name of this module that is also one of its settings.
__all__ = ["post_worker_init", "when_ready"]

PreRequest: TypeAlias = Callable[[Any, Any], None]


class Arbiter(Protocol):
    """The part of gunicorn's Arbiter, its master process, that is used here."""

    log: Any
    reexec_pid: int
    master_pid: int
    worker_age: int
    num_workers: int

    @property
    def LISTENERS(self) -> Sequence[ListeningSocket]:  # noqa: N802 (gunicorn's name)
        """The listening sockets."""

    def signal(self, signum: int, frame: Any, /) -> None:
        """Queue a signal for the main loop."""

    def handle_term(self) -> NoReturn:
        """Raise StopIteration, which ends the main loop gracefully."""


def set_alarm(seconds: float) -> None:
    """Send this process SIGALRM after so many seconds; 0 for never."""
    # Then each second: gunicorn 22 and 23 drop a signal when five others are queued.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)


class ArbiterDrain:
    """SIGTERM as gunicorn's master handles it: the first begins the drain, its end or a second one stops the server.

    The master's loop calls `handle_<signal>` by name, outside of any signal handler, so that these may log. An alarm
    wakes it, not a thread, which could die.
    """

    def __init__(
        self,
        arbiter: Arbiter,
        settings: DrainSettings,
        state: SharedState,
        *,
        clock: Callable[[], float] = time.monotonic,
        set_alarm: Callable[[float], None] = set_alarm,
    ) -> None:
        self._arbiter = arbiter
        self._settings = settings
        self._state = state
        self._clock = clock
        self._set_alarm = set_alarm
        self._stop_arbiter = arbiter.handle_term
        self._worker_age = 0

    def handle_term(self) -> None:
        """Begin the drain; stop if it has begun, or if another master serves the same sockets (SIGUSR2)."""
        if self._state.draining:
            self._stop("a second SIGTERM")
        if self._arbiter.reexec_pid or self._predecessor_is_alive():
            self._stop("another master serves the same sockets")
        self._worker_age = self._arbiter.worker_age
        self._state.drain_started = self._clock()
        self._arbiter.log.info(
            "Draining until no request has arrived for %g s, at most %g s",
            self._settings.idle_timeout,
            self._settings.time_limit,
        )
        if not can_read_accept_queue():
            self._arbiter.log.warning(
                "The accept queue cannot be read on %s: connections that wait in it do not keep the drain open",
                sys.platform,
            )
        signal.signal(signal.SIGALRM, self._arbiter.signal)
        self.handle_alrm()

    def handle_alrm(self) -> None:
        """Stop if it is time; otherwise set the alarm for when it may be."""
        try:
            seconds_left = self._seconds_left()
        except Exception:
            # A pod that never ends is worse than one that ends early.
            self._arbiter.log.exception("The drain failed")
            self._stop("the drain failed")
        if seconds_left > 0:
            self._set_alarm(seconds_left)
        else:
            self._stop(f"drained for {self._clock() - self._state.drain_started:.1f} s")

    def _seconds_left(self) -> float:
        now = self._clock()
        if self._arbiter.worker_age - self._worker_age >= self._arbiter.num_workers:
            self._worker_age = self._arbiter.worker_age
            self._arbiter.log.warning(
                "Workers exited during the drain and were replaced: if they received SIGTERM too, "
                "make the init process signal gunicorn alone (dumb-init --single-child)"
            )
        instrumented = self._state.instrumented
        if not instrumented:
            self._arbiter.log.warning(
                "No worker records its requests, so the drain takes its whole time: "
                "expected podproof.drain.gunicorn's post_worker_init; does the configuration override it?"
            )
        queued = any(accept_queue_length(listener) for listener in self._arbiter.LISTENERS)
        last_request = now if queued or not instrumented else self._state.last_request
        return self._settings.stop_time(drain_started=self._state.drain_started, last_request=last_request) - now

    def _predecessor_is_alive(self) -> bool:
        # gunicorn learns up to a second late that a predecessor has ended. PID 1 has the parent 0.
        return self._arbiter.master_pid != 0 and self._arbiter.master_pid == os.getppid()

    def _stop(self, reason: str) -> NoReturn:
        self._set_alarm(0.0)
        self._arbiter.log.info("Stopping: %s", reason)
        self._stop_arbiter()


def record_requests(
    next_hook: PreRequest, settings: DrainSettings, state: SharedState, clock: Callable[[], float] = time.monotonic
) -> PreRequest:
    """Return a `pre_request` hook that, in a drain, records requests and closes their connections; then `next_hook`."""

    def pre_request(worker: Any, request: Any) -> None:
        if state.draining:
            user_agent = next((value for name, value in request.headers if name == "USER-AGENT"), "")
            if settings.keeps_open(request.method, request.path, user_agent):
                state.last_request = clock()
            # gunicorn drops an app's own Connection header, and its asgi worker's requests have no force_close().
            request.must_close = True
        next_hook(worker, request)

    return pre_request


def instrument_worker(worker: Any, settings: DrainSettings, state: SharedState) -> None:
    """Make a worker, its app loaded, record its requests and close its connections in a drain."""
    kinds = {kind.__name__ for kind in type(worker).__mro__}
    if "ASGIWorker" in kinds:
        app = worker.asgi = DrainedApp(worker.asgi, settings, state=state)
        tasks: list[object] = []  # asyncio keeps no reference to a task

        def on_sigterm() -> None:
            worker.handle_exit_signal()
            tasks.append(worker.loop.create_task(app.close_websockets()))

        # This worker would wait for open WebSockets until graceful_timeout, then cut them; uvicorn's closes them.
        worker.loop.add_signal_handler(signal.SIGTERM, on_sigterm)
    elif "UvicornWorker" in kinds:
        worker.wsgi = DrainedApp(worker.wsgi, settings, state=state)
    worker.cfg.set("pre_request", record_requests(worker.cfg.pre_request, settings, state))
    state.mark_instrumented()


def hooks(**options: Unpack[DrainOptions]) -> tuple[Callable[[Any], None], Callable[[Any], None]]:
    """Return `when_ready` and `post_worker_init` with these options of `DrainSettings`.

    Options not given are read from `PODPROOF_DRAIN_*`. Raises ValueError for invalid ones.
    """
    settings = read_drain_settings(**options)

    def when_ready(server: Any) -> None:
        if not hasattr(signal, "setitimer"):
            server.log.warning("No drain: %s has no timer signals (setitimer)", sys.platform)
            return
        drain = ArbiterDrain(server, settings, SHARED_STATE)
        server.handle_term = drain.handle_term
        server.handle_alrm = drain.handle_alrm

    def post_worker_init(worker: Any) -> None:
        instrument_worker(worker, settings, SHARED_STATE)

    return when_ready, post_worker_init


when_ready, post_worker_init = hooks()
