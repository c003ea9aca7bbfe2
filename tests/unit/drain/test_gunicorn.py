"""gunicorn's hooks, on a master and workers that the tests own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]  # gunicorn ships no types

import podproof.drain.gunicorn
from podproof.drain.asgi import DrainedApp
from podproof.drain.gunicorn import ArbiterDrain, hooks, instrument_worker, record_requests, set_alarm
from podproof.drain.settings import DrainSettings
from podproof.drain.shared_state import SHARED_STATE, SharedState

SETTINGS = DrainSettings(idle_timeout=15, max=300, ignored_paths=("/healthz",))


class FakeListener:
    """A listening socket with connections in its accept queue."""

    length = 0

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return struct.pack("=24xI", self.length).ljust(size, b"\0")


class FakeArbiter:
    """gunicorn's master, with two workers."""

    def __init__(self) -> None:
        self.listener = FakeListener()
        self.LISTENERS = [FakeListener(), self.listener]
        self.log = logging.getLogger("gunicorn.error")
        self.reexec_pid = 0
        self.master_pid = 0
        self.worker_age = 2
        self.num_workers = 2
        self.signals: list[int] = []

    def signal(self, signum: int, frame: Any) -> None:
        self.signals.append(signum)

    def handle_term(self) -> NoReturn:
        raise StopIteration


class DrainedArbiter:
    """A drain whose clock and alarm the tests own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alarms: list[float] = []
        self.arbiter = FakeArbiter()
        self.state = SharedState()
        self.state.mark_instrumented()
        self.drain = ArbiterDrain(
            self.arbiter, SETTINGS, self.state, clock=lambda: self.now, set_alarm=self.alarms.append
        )

    def sigterm(self, at: float = 1000) -> bool:
        """Return whether the master stops."""
        return self._stops(self.drain.handle_term, at)

    def alarm(self, at: float) -> bool:
        """Return whether the master stops."""
        return self._stops(self.drain.handle_alrm, at)

    def _stops(self, handler: Any, at: float) -> bool:
        self.now = at
        try:
            handler()
        except StopIteration:
            return True
        return False


@pytest.fixture
def drained() -> Iterator[DrainedArbiter]:
    before = signal.getsignal(signal.SIGALRM)
    yield DrainedArbiter()
    signal.signal(signal.SIGALRM, before)


def test_the_first_sigterm_only_begins_the_drain(drained: DrainedArbiter) -> None:
    assert not drained.sigterm(at=1000)
    assert drained.state.drain_started == 1000
    assert drained.alarms == [15]


def test_alarms_wake_the_masters_loop_as_its_own_signals_do(drained: DrainedArbiter) -> None:
    drained.sigterm()
    signal.raise_signal(signal.SIGALRM)
    assert drained.arbiter.signals == [signal.SIGALRM]


def test_without_traffic_the_master_stops_after_the_idle_timeout(drained: DrainedArbiter) -> None:
    drained.sigterm(at=1000)
    assert drained.alarm(at=1015)
    assert drained.alarms[-1] == 0


def test_the_master_waits_for_the_idle_timeout_after_the_last_request(drained: DrainedArbiter) -> None:
    drained.sigterm(at=1000)
    drained.state.last_request = 1009.0
    assert not drained.alarm(at=1015)
    assert drained.alarms[-1] == 9
    assert drained.alarm(at=1024)


def test_requests_that_never_stop_end_with_the_time_limit(drained: DrainedArbiter) -> None:
    drained.sigterm(at=1000)
    drained.state.last_request = 1299.0
    assert not drained.alarm(at=1299)
    assert drained.alarms[-1] == 1
    assert drained.alarm(at=1300)


def test_a_second_sigterm_stops_at_once(drained: DrainedArbiter) -> None:
    drained.sigterm(at=1000)
    assert drained.sigterm(at=1001)
    assert drained.alarms[-1] == 0


def test_connections_in_the_accept_queue_keep_the_drain_open(drained: DrainedArbiter) -> None:
    drained.sigterm(at=1000)
    drained.arbiter.listener.length = 1
    assert not drained.alarm(at=1015)
    assert drained.alarms[-1] == 15
    drained.arbiter.listener.length = 0
    assert drained.alarm(at=1030)


def test_an_error_in_the_drain_stops_the_server(drained: DrainedArbiter, caplog: pytest.LogCaptureFixture) -> None:
    drained.sigterm(at=1000)
    drained.arbiter.LISTENERS = None  # type: ignore[assignment]
    assert drained.alarm(at=1001)
    assert "The drain failed" in caplog.text


def test_the_alarm_is_repeated_each_second_in_case_gunicorn_drops_it() -> None:
    try:
        set_alarm(50)
        first, then = signal.getitimer(signal.ITIMER_REAL)
        assert 49 < first <= 50
        assert then == 1
    finally:
        set_alarm(0)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_master_that_a_usr2_upgrade_replaces_does_not_drain(drained: DrainedArbiter) -> None:
    drained.arbiter.reexec_pid = 4711
    assert drained.sigterm(at=1000)
    assert not drained.state.draining


def test_a_successor_does_not_drain_while_its_predecessor_serves(drained: DrainedArbiter) -> None:
    drained.arbiter.master_pid = os.getppid()
    assert drained.sigterm(at=1000)
    assert not drained.state.draining


def test_a_successor_drains_although_gunicorn_still_names_a_predecessor_that_has_ended(drained: DrainedArbiter) -> None:
    drained.arbiter.master_pid = os.getpid()
    assert not drained.sigterm(at=1000)


def test_a_master_that_is_pid_1_drains(drained: DrainedArbiter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 0)
    assert not drained.sigterm(at=1000)


def test_workers_that_received_sigterm_too_are_logged_once(
    drained: DrainedArbiter, caplog: pytest.LogCaptureFixture
) -> None:
    drained.sigterm(at=1000)
    drained.state.last_request = 1014.0
    drained.arbiter.worker_age += 1
    drained.alarm(at=1015)
    assert "dumb-init" not in caplog.text
    drained.arbiter.worker_age += 1
    drained.alarm(at=1016)
    drained.alarm(at=1017)
    assert caplog.text.count("dumb-init --single-child") == 1


def test_without_an_instrumented_worker_the_drain_takes_its_whole_time(
    drained: DrainedArbiter, caplog: pytest.LogCaptureFixture
) -> None:
    drained.drain = ArbiterDrain(
        drained.arbiter, SETTINGS, SharedState(), clock=lambda: drained.now, set_alarm=drained.alarms.append
    )
    drained.sigterm(at=1000)
    assert "does the configuration override it?" in caplog.text
    assert not drained.alarm(at=1015)
    assert drained.alarm(at=1300)


class SlottedRequest:
    """A request of gunicorn's asgi worker: slots, and no force_close()."""

    __slots__ = ("headers", "method", "must_close", "path")

    def __init__(self, path: str = "/", user_agent: str | None = "curl/8", method: str = "GET") -> None:
        self.method = method
        self.path = path
        self.headers = [("HOST", "bob")] + ([("USER-AGENT", user_agent)] if user_agent is not None else [])
        self.must_close = False


def call_pre_request(state: SharedState, request: SlottedRequest) -> list[Any]:
    """Call the hook with a request; return what the next hook was called with."""
    called: list[Any] = []
    hook = record_requests(lambda *arguments: called.append(arguments), SETTINGS, state, clock=lambda: 50.0)
    hook("worker", request)
    return called


def test_in_a_drain_a_request_is_recorded_and_its_connection_closed_by_must_close_not_force_close() -> None:
    state, request = SharedState(), SlottedRequest()
    state.drain_started = 1.0
    assert call_pre_request(state, request) == [("worker", request)]
    assert (state.last_request, request.must_close) == (50.0, True)


def test_before_a_drain_a_request_is_neither_recorded_nor_changed() -> None:
    state, request = SharedState(), SlottedRequest()
    assert call_pre_request(state, request) == [("worker", request)]
    assert (state.last_request, request.must_close) == (0.0, False)


@pytest.mark.parametrize("request_", [SlottedRequest(user_agent="kube-probe/1.33"), SlottedRequest("/healthz")])
def test_health_checks_have_their_connection_closed_and_are_not_recorded(request_: SlottedRequest) -> None:
    state = SharedState()
    state.drain_started = 1.0
    call_pre_request(state, request_)
    assert (state.last_request, request_.must_close) == (0.0, True)


def test_metrics_pushed_by_prometheus_are_recorded() -> None:
    state = SharedState()
    state.drain_started = 1.0
    call_pre_request(state, SlottedRequest(user_agent="Prometheus/3.5.0", method="POST"))
    assert state.last_request == 50.0


def test_a_request_without_a_user_agent_is_recorded() -> None:
    state = SharedState()
    state.drain_started = 1.0
    call_pre_request(state, SlottedRequest(user_agent=None))
    assert state.last_request == 50.0


class SyncWorker:
    def __init__(self) -> None:
        self.cfg = Config()
        self.wsgi = object()


class UvicornWorker(SyncWorker):
    pass


class ASGIWorker(SyncWorker):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.asgi = object()
        self.alive = True

    def handle_exit_signal(self) -> None:
        self.alive = False


def test_a_wsgi_worker_records_requests_and_keeps_its_app() -> None:
    worker, state = SyncWorker(), SharedState()
    app, state.drain_started = worker.wsgi, 1.0
    instrument_worker(worker, SETTINGS, state)
    request = SimpleNamespace(path="/", method="GET", headers=[], must_close=False)
    worker.log = SimpleNamespace(debug=lambda *_: None)  # type: ignore[attr-defined]
    worker.cfg.pre_request(worker, request)
    assert (worker.wsgi is app, state.instrumented, request.must_close) == (True, True, True)
    assert 0 < state.last_request <= time.monotonic()


def test_a_uvicorn_worker_calls_no_hooks_so_its_app_is_wrapped() -> None:
    worker = UvicornWorker()
    instrument_worker(worker, SETTINGS, SharedState())
    assert isinstance(worker.wsgi, DrainedApp)


def test_gunicorns_asgi_worker_closes_websockets_when_it_stops() -> None:
    async def run() -> tuple[bool, bool]:
        worker = ASGIWorker(asyncio.get_running_loop())
        instrument_worker(worker, SETTINGS, SharedState())
        closed = asyncio.Event()
        assert isinstance(worker.asgi, DrainedApp)

        async def close_websockets() -> None:
            closed.set()

        worker.asgi.close_websockets = close_websockets  # type: ignore[method-assign]
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await closed.wait()
        worker.loop.remove_signal_handler(signal.SIGTERM)
        return worker.alive, closed.is_set()

    assert asyncio.run(run()) == (False, True)


def test_the_modules_names_that_gunicorn_reads_as_settings_are_its_hooks() -> None:
    read = set(vars(podproof.drain.gunicorn)) & set(Config().settings)
    assert read == set(podproof.drain.gunicorn.__all__) == {"when_ready", "post_worker_init"}


def test_the_hooks_install_the_drain() -> None:
    when_ready, post_worker_init = hooks(idle_timeout=10)
    arbiter, worker = FakeArbiter(), SyncWorker()
    when_ready(arbiter)
    post_worker_init(worker)
    assert isinstance(arbiter.handle_term.__self__, ArbiterDrain)  # type: ignore[attr-defined]
    assert arbiter.handle_alrm.__self__ is arbiter.handle_term.__self__  # type: ignore[attr-defined]
    assert SHARED_STATE.instrumented


def test_hooks_with_an_invalid_option_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"^invalid idle_timeout -1: expected 0 or more seconds$"):
        hooks(idle_timeout=-1)


def test_an_idle_timeout_of_0_stops_at_once(drained: DrainedArbiter) -> None:
    settings = DrainSettings(idle_timeout=0)
    drained.drain = ArbiterDrain(
        drained.arbiter, settings, drained.state, clock=lambda: drained.now, set_alarm=drained.alarms.append
    )
    drained.arbiter.listener.length = 1
    assert drained.sigterm(at=1000)


def test_on_macos_the_log_says_that_the_accept_queue_is_not_read(
    drained: DrainedArbiter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    drained.arbiter.listener.length = 1
    assert not drained.sigterm(at=1000)
    assert drained.alarm(at=1015)
    assert caplog.text.count("The accept queue cannot be read on darwin") == 1


def test_without_timer_signals_gunicorn_keeps_its_own_sigterm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(signal, "setitimer")
    when_ready, _ = hooks()
    arbiter = FakeArbiter()
    when_ready(arbiter)
    assert "handle_term" not in vars(arbiter)
    assert "No drain: linux has no timer signals" in caplog.text
