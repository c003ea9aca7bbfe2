"""gunicorn's hooks, on a master and workers that the tests own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]  # gunicorn ships no types

import podproof.drain.gunicorn
from podproof.drain.asgi import DrainedApp
from podproof.drain.gunicorn import Drain, hooks, join, set_alarm, stamping
from podproof.drain.settings import DrainSettings
from podproof.drain.shared_state import SHARED, SharedState

SETTINGS = DrainSettings(gap=15, max=300, ignored_paths=("/healthz",))


class Queue:
    """A listening socket with connections waiting."""

    length = 0

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return struct.pack("=24xI", self.length).ljust(size, b"\0")


class Master:
    """gunicorn's master, with two workers."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.LISTENERS = [Queue(), self.queue]
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


class Scene:
    """A drain whose clock and alarm the tests own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alarms: list[float] = []
        self.master = Master()
        self.stamps = SharedState()
        self.stamps.promise()
        self.drain = Drain(self.master, SETTINGS, self.stamps, clock=lambda: self.now, set_alarm=self.alarms.append)

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
def scene() -> Iterator[Scene]:
    before = signal.getsignal(signal.SIGALRM)
    yield Scene()
    signal.signal(signal.SIGALRM, before)


def test_the_first_sigterm_only_begins_the_drain(scene: Scene) -> None:
    assert not scene.sigterm(at=1000)
    assert scene.stamps.since == 1000
    assert scene.alarms == [15]


def test_alarms_wake_the_masters_loop_as_its_own_signals_do(scene: Scene) -> None:
    scene.sigterm()
    signal.raise_signal(signal.SIGALRM)
    assert scene.master.signals == [signal.SIGALRM]


def test_without_traffic_the_master_stops_after_one_gap(scene: Scene) -> None:
    scene.sigterm(at=1000)
    assert scene.alarm(at=1015)
    assert scene.alarms[-1] == 0


def test_the_master_waits_for_one_gap_after_the_last_request(scene: Scene) -> None:
    scene.sigterm(at=1000)
    scene.stamps.arrived = 1009.0
    assert not scene.alarm(at=1015)
    assert scene.alarms[-1] == 9
    assert scene.alarm(at=1024)


def test_callers_that_never_stop_are_left_when_the_time_is_up(scene: Scene) -> None:
    scene.sigterm(at=1000)
    scene.stamps.arrived = 1299.0
    assert not scene.alarm(at=1299)
    assert scene.alarms[-1] == 1
    assert scene.alarm(at=1300)


def test_a_second_sigterm_stops_at_once(scene: Scene) -> None:
    scene.sigterm(at=1000)
    assert scene.sigterm(at=1001)
    assert scene.alarms[-1] == 0


def test_saturated_workers_are_not_idle_while_the_accept_queue_is_full(scene: Scene) -> None:
    scene.sigterm(at=1000)
    scene.master.queue.length = 1
    assert not scene.alarm(at=1015)
    assert scene.alarms[-1] == 15
    scene.master.queue.length = 0
    assert scene.alarm(at=1030)


def test_a_watch_that_fails_ends_the_server(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.sigterm(at=1000)
    scene.master.LISTENERS = None  # type: ignore[assignment]
    assert scene.alarm(at=1001)
    assert "The drain failed" in caplog.text


def test_a_forgotten_alarm_is_repeated_each_second() -> None:
    try:
        set_alarm(50)
        first, then = signal.getitimer(signal.ITIMER_REAL)
        assert 49 < first <= 50
        assert then == 1
    finally:
        set_alarm(0)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_master_in_a_usr2_upgrade_does_not_drain_since_its_successor_serves_on(scene: Scene) -> None:
    scene.master.reexec_pid = 4711
    assert scene.sigterm(at=1000)
    assert not scene.stamps.draining


def test_a_successor_does_not_drain_while_its_predecessor_serves(scene: Scene) -> None:
    scene.master.master_pid = os.getppid()
    assert scene.sigterm(at=1000)
    assert not scene.stamps.draining


def test_a_successor_drains_although_gunicorn_still_names_a_predecessor_that_has_ended(scene: Scene) -> None:
    scene.master.master_pid = os.getpid()
    assert not scene.sigterm(at=1000)


def test_a_master_that_is_pid_1_drains(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 0)
    assert not scene.sigterm(at=1000)


def test_workers_that_got_the_sigterm_too_are_told_of_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.sigterm(at=1000)
    scene.stamps.arrived = 1014.0
    scene.master.worker_age += 1
    scene.alarm(at=1015)
    assert "dumb-init" not in caplog.text
    scene.master.worker_age += 1
    scene.alarm(at=1016)
    scene.alarm(at=1017)
    assert caplog.text.count("dumb-init --single-child") == 1


def test_unstamped_requests_are_not_taken_for_none(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.drain = Drain(scene.master, SETTINGS, SharedState(), clock=lambda: scene.now, set_alarm=scene.alarms.append)
    scene.sigterm(at=1000)
    assert "is post_worker_init overridden?" in caplog.text
    assert not scene.alarm(at=1015)
    assert scene.alarm(at=1300)


class SlottedRequest:
    """A request of gunicorn's asgi worker: slots, and no force_close()."""

    __slots__ = ("headers", "must_close", "path")

    def __init__(self, path: str = "/", agent: str | None = "curl/8") -> None:
        self.path = path
        self.headers = [("HOST", "bob")] + ([("USER-AGENT", agent)] if agent is not None else [])
        self.must_close = False


def stamped(stamps: SharedState, request: SlottedRequest) -> list[Any]:
    """Return what the hook that was there before was called with."""
    called: list[Any] = []
    hook = stamping(lambda *arguments: called.append(arguments), SETTINGS, stamps, clock=lambda: 50.0)
    hook("worker", request)
    return called


def test_while_draining_a_request_is_stamped_and_closed_by_must_close_not_force_close() -> None:
    stamps, request = SharedState(), SlottedRequest()
    stamps.since = 1.0
    assert stamped(stamps, request) == [("worker", request)]
    assert (stamps.arrived, request.must_close) == (50.0, True)


def test_before_a_drain_a_request_is_left_alone() -> None:
    stamps, request = SharedState(), SlottedRequest()
    assert stamped(stamps, request) == [("worker", request)]
    assert (stamps.arrived, request.must_close) == (0.0, False)


@pytest.mark.parametrize("request_", [SlottedRequest(agent="kube-probe/1.33"), SlottedRequest("/healthz")])
def test_probes_are_closed_but_do_not_reset_the_gap(request_: SlottedRequest) -> None:
    stamps = SharedState()
    stamps.since = 1.0
    stamped(stamps, request_)
    assert (stamps.arrived, request_.must_close) == (0.0, True)


def test_a_request_without_a_user_agent_counts() -> None:
    stamps = SharedState()
    stamps.since = 1.0
    stamped(stamps, SlottedRequest(agent=None))
    assert stamps.arrived == 50.0


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


def test_a_wsgi_worker_stamps_and_keeps_its_app() -> None:
    worker, stamps = SyncWorker(), SharedState()
    app, stamps.since = worker.wsgi, 1.0
    join(worker, SETTINGS, stamps)
    request = SimpleNamespace(path="/", method="GET", headers=[], must_close=False)
    worker.log = SimpleNamespace(debug=lambda *_: None)  # type: ignore[attr-defined]
    worker.cfg.pre_request(worker, request)
    assert (worker.wsgi is app, stamps.stamped, request.must_close) == (True, True, True)
    assert 0 < stamps.arrived <= time.monotonic()


def test_a_uvicorn_worker_calls_no_hooks_so_its_app_stamps() -> None:
    worker = UvicornWorker()
    join(worker, SETTINGS, SharedState())
    assert isinstance(worker.wsgi, DrainedApp)


def test_gunicorns_asgi_worker_tells_websockets_when_it_stops() -> None:
    async def scene() -> tuple[bool, bool]:
        worker = ASGIWorker(asyncio.get_running_loop())
        join(worker, SETTINGS, SharedState())
        told = asyncio.Event()
        assert isinstance(worker.asgi, DrainedApp)

        async def leave_websockets() -> None:
            told.set()

        worker.asgi.leave_websockets = leave_websockets  # type: ignore[method-assign]
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await told.wait()
        worker.loop.remove_signal_handler(signal.SIGTERM)
        return worker.alive, told.is_set()

    assert asyncio.run(scene()) == (False, True)


def test_the_modules_names_that_gunicorn_reads_as_settings_are_its_hooks() -> None:
    read = set(vars(podproof.drain.gunicorn)) & set(Config().settings)
    assert read == set(podproof.drain.gunicorn.__all__) == {"when_ready", "post_worker_init"}


def test_the_hooks_put_the_drain_in() -> None:
    when_ready, post_worker_init = hooks(gap=10)
    master, worker = Master(), SyncWorker()
    when_ready(master)
    post_worker_init(worker)
    assert isinstance(master.handle_term.__self__, Drain)  # type: ignore[attr-defined]
    assert master.handle_alrm.__self__ is master.handle_term.__self__  # type: ignore[attr-defined]
    assert SHARED.stamped
    with pytest.raises(ValueError, match="gap"):
        hooks(gap=0)
