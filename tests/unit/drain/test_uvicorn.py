"""The middleware for uvicorn, on a loop and a clock that the tests own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from podproof.drain.asgi import Message, Receive, Scope, Send
from podproof.drain.settings import DrainSettings
from podproof.drain.shared_state import SharedState
from podproof.drain.uvicorn import CONFIRM, Drain, DrainMiddleware

SETTINGS = DrainSettings(gap=15, max=300)


class Loop:
    """An event loop that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self.call_later(0, callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, callback))

    def run(self, until: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= until]:
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = until


class Scene:
    """A process whose server has handled SIGTERM so far."""

    def __init__(self) -> None:
        self.stops: list[float] = []
        self.loop = Loop()
        self.stamps = SharedState()
        signal.signal(signal.SIGTERM, self._server)
        self.drain = Drain(self.loop, SETTINGS, self.stamps, clock=lambda: self.loop.now)  # type: ignore[arg-type]
        self.drain.take_over()

    def _server(self, signum: int, frame: FrameType | None) -> None:
        self.stops.append(self.loop.now)

    def sigterm(self, at: float) -> None:
        self.loop.run(at)
        signal.raise_signal(signal.SIGTERM)

    def request(self, at: float) -> None:
        self.loop.run(at)
        self.stamps.arrived = at


@pytest.fixture
def scene() -> Iterator[Scene]:
    before = signal.getsignal(signal.SIGTERM)
    yield Scene()
    signal.signal(signal.SIGTERM, before)


def test_without_traffic_the_server_stops_after_one_gap(scene: Scene) -> None:
    scene.sigterm(at=1000)
    scene.loop.run(until=1100)
    assert scene.stops == [1015 + CONFIRM]


def test_the_server_waits_for_one_gap_after_the_last_request(scene: Scene) -> None:
    scene.sigterm(at=1000)
    scene.request(at=1009)
    scene.request(at=1020)
    scene.loop.run(until=1100)
    assert scene.stops == [1035 + CONFIRM]


def test_callers_that_never_stop_are_left_when_the_time_is_up(scene: Scene) -> None:
    scene.sigterm(at=1000)
    for moment in range(1000, 1310, 10):
        scene.request(at=moment)
    scene.loop.run(until=1400)
    assert scene.stops == [1300 + CONFIRM]


def test_a_second_sigterm_stops_at_once_and_only_once(scene: Scene) -> None:
    scene.sigterm(at=1000)
    scene.sigterm(at=1001)
    scene.loop.run(until=1100)
    assert scene.stops == [1001]


def test_a_second_sigterm_stops_even_before_the_loop_has_seen_the_first(scene: Scene) -> None:
    scene.sigterm(at=1000)
    signal.raise_signal(signal.SIGTERM)
    assert scene.stops == [1000]


def test_a_third_sigterm_goes_to_the_server(scene: Scene) -> None:
    for moment in (1000, 1001, 1002):
        scene.sigterm(at=moment)
    assert scene.stops == [1001, 1002]


def test_a_loop_that_was_blocked_finds_the_requests_that_came_meanwhile(scene: Scene) -> None:
    scene.sigterm(at=1000)
    scene.loop.run(until=1015)
    assert scene.stops == []
    scene.request(at=1015 + CONFIRM / 2)
    scene.loop.run(until=1100)
    assert scene.stops == [1015 + CONFIRM / 2 + 15 + CONFIRM]


def test_a_watch_that_fails_ends_the_server(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.sigterm(at=1000)
    scene.loop.run(until=1001)
    scene.drain._clock = lambda: 1 / 0
    scene.loop.run(until=1100)
    assert scene.stops == [1015]
    assert "The drain failed" in caplog.text


def test_a_pid_that_is_not_ours_does_not_drain(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    scene.sigterm(at=1000)
    assert scene.stops == [1000]
    assert not scene.stamps.draining


async def _receive() -> Message:
    raise NotImplementedError


async def _send(message: Message) -> None:
    raise NotImplementedError


class App:
    """An app that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["type"])


@pytest.mark.usefixtures("scene")
def test_the_middleware_takes_sigterm_over_with_the_lifespan() -> None:
    app = App()
    middleware = DrainMiddleware(app, stamps=SharedState(), gap=10)
    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(middleware({"type": "http", "path": "/", "headers": [], "http_version": "1.1"}, _receive, _send))
    assert signal.getsignal(signal.SIGTERM) == before
    asyncio.run(middleware({"type": "lifespan"}, _receive, _send))
    assert isinstance(signal.getsignal(signal.SIGTERM).__self__, Drain)  # type: ignore[union-attr]
    assert middleware.settings.gap == 10
    assert app.asked == ["http", "lifespan"]


@pytest.mark.usefixtures("scene")
def test_a_server_in_another_thread_goes_on_without_a_drain(caplog: pytest.LogCaptureFixture) -> None:
    app, before = App(), signal.getsignal(signal.SIGTERM)
    middleware = DrainMiddleware(app)
    thread = threading.Thread(target=lambda: asyncio.run(middleware({"type": "lifespan"}, _receive, _send)))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
    assert app.asked == ["lifespan"]
    assert "No drain" in caplog.text


def test_a_bad_option_is_refused_when_the_app_is_made() -> None:
    with pytest.raises(ValueError, match="max"):
        DrainMiddleware(App(), max=0)


def test_the_command_is_uvicorns() -> None:
    command = [sys.executable, "-m", "podproof.drain.uvicorn", "--version"]
    script = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert script.stdout.startswith("Running uvicorn ")


PARENT = """
import multiprocessing, signal, time
from podproof.drain.uvicorn import pass_on_sigterm

signal.signal(signal.SIGTERM, lambda *_: None)
pass_on_sigterm()
child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
child.start()
signal.raise_signal(signal.SIGTERM)
child.join(0.2)
first = child.exitcode
signal.raise_signal(signal.SIGTERM)
child.join(30)
print(first, child.exitcode)
"""


def test_a_parent_process_passes_the_second_sigterm_on() -> None:
    script = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True, timeout=60)
    assert script.stdout == f"None {-signal.SIGTERM}\n"
