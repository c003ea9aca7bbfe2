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
from starlette.applications import Starlette
from starlette.middleware import Middleware
from uvicorn import Config, Server

from podproof.drain.asgi import Message, Receive, Scope, Send
from podproof.drain.settings import DrainSettings
from podproof.drain.shared_state import SharedState
from podproof.drain.uvicorn import CONFIRM, DrainMiddleware, UvicornDrain

SETTINGS = DrainSettings(idle_timeout=15, max=300)


class ManualLoop:
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


class DrainedServer:
    """A process with a server, whose handler of SIGTERM a drain has taken over."""

    def __init__(self) -> None:
        self.stops: list[float] = []
        self.loop = ManualLoop()
        self.state = SharedState()
        signal.signal(signal.SIGTERM, self._handle_sigterm)
        self.drain = UvicornDrain(self.loop, SETTINGS, self.state, clock=lambda: self.loop.now)  # type: ignore[arg-type]
        self.drain.take_over()

    def _handle_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self.stops.append(self.loop.now)

    def sigterm(self, at: float) -> None:
        self.loop.run(at)
        signal.raise_signal(signal.SIGTERM)

    def request(self, at: float) -> None:
        self.loop.run(at)
        self.state.last_request = at


@pytest.fixture
def drained_server() -> Iterator[DrainedServer]:
    before = signal.getsignal(signal.SIGTERM)
    yield DrainedServer()
    signal.signal(signal.SIGTERM, before)


def test_without_traffic_the_server_stops_after_the_idle_timeout(drained_server: DrainedServer) -> None:
    drained_server.sigterm(at=1000)
    drained_server.loop.run(until=1100)
    assert drained_server.stops == [1015 + CONFIRM]


def test_the_server_waits_for_the_idle_timeout_after_the_last_request(drained_server: DrainedServer) -> None:
    drained_server.sigterm(at=1000)
    drained_server.request(at=1009)
    drained_server.request(at=1020)
    drained_server.loop.run(until=1100)
    assert drained_server.stops == [1035 + CONFIRM]


def test_requests_that_never_stop_end_with_the_time_limit(drained_server: DrainedServer) -> None:
    drained_server.sigterm(at=1000)
    for moment in range(1000, 1310, 10):
        drained_server.request(at=moment)
    drained_server.loop.run(until=1400)
    assert drained_server.stops == [1300 + CONFIRM]


def test_a_second_sigterm_stops_at_once_and_only_once(drained_server: DrainedServer) -> None:
    drained_server.sigterm(at=1000)
    drained_server.sigterm(at=1001)
    drained_server.loop.run(until=1100)
    assert drained_server.stops == [1001]


def test_a_second_sigterm_stops_even_before_the_loop_has_handled_the_first(drained_server: DrainedServer) -> None:
    drained_server.sigterm(at=1000)
    signal.raise_signal(signal.SIGTERM)
    assert drained_server.stops == [1000]


def test_a_third_sigterm_goes_to_the_server(drained_server: DrainedServer) -> None:
    for moment in (1000, 1001, 1002):
        drained_server.sigterm(at=moment)
    assert drained_server.stops == [1001, 1002]


def test_requests_that_arrived_while_the_loop_was_blocked_postpone_the_end(drained_server: DrainedServer) -> None:
    drained_server.sigterm(at=1000)
    drained_server.loop.run(until=1015)
    assert drained_server.stops == []
    drained_server.request(at=1015 + CONFIRM / 2)
    drained_server.loop.run(until=1100)
    assert drained_server.stops == [1015 + CONFIRM / 2 + 15 + CONFIRM]


def test_an_error_in_the_drain_stops_the_server(
    drained_server: DrainedServer, caplog: pytest.LogCaptureFixture
) -> None:
    drained_server.sigterm(at=1000)
    drained_server.loop.run(until=1001)
    drained_server.drain._clock = lambda: 1 / 0
    drained_server.loop.run(until=1100)
    assert drained_server.stops == [1015]
    assert "The drain failed" in caplog.text


def test_a_process_that_the_app_forked_does_not_drain(
    drained_server: DrainedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    drained_server.sigterm(at=1000)
    assert drained_server.stops == [1000]
    assert not drained_server.state.draining


async def receive_startup() -> Message:
    return {"type": "lifespan.startup"}


async def discard_message(message: Message) -> None:
    raise NotImplementedError


class RecordingApp:
    """An app that records the types of its scopes."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope["type"])


HTTP_SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "http_version": "1.1"}


@pytest.mark.usefixtures("drained_server")
def test_the_middleware_takes_sigterm_over_with_the_lifespan() -> None:
    app = RecordingApp()
    middleware = DrainMiddleware(app, state=SharedState(), idle_timeout=10)
    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(middleware(HTTP_SCOPE, receive_startup, discard_message))
    assert signal.getsignal(signal.SIGTERM) == before
    lifespan_of(middleware)
    assert isinstance(signal.getsignal(signal.SIGTERM).__self__, UvicornDrain)  # type: ignore[union-attr]
    assert middleware.settings.idle_timeout == 10
    assert app.scopes == ["http", "lifespan"]


def lifespan_of(middleware: DrainMiddleware) -> None:
    asyncio.run(middleware({"type": "lifespan"}, receive_startup, discard_message))


@pytest.mark.usefixtures("drained_server")
def test_a_server_in_another_thread_runs_without_a_drain(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    app, before = RecordingApp(), signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lifespan_of, args=[DrainMiddleware(app)])
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
    assert app.scopes == ["lifespan"]
    assert "No drain: signals do not reach a server outside of the main thread" in caplog.text


@pytest.mark.usefixtures("drained_server")
def test_on_windows_a_server_runs_without_a_drain(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(sys, "platform", "win32")
    app, before = RecordingApp(), signal.getsignal(signal.SIGTERM)
    lifespan_of(DrainMiddleware(app))
    assert signal.getsignal(signal.SIGTERM) == before
    assert app.scopes == ["lifespan"]
    assert "No drain: Windows sends no SIGTERM" in caplog.text


@pytest.mark.parametrize("reload", [True, False])
@pytest.mark.usefixtures("drained_server")
def test_a_server_under_uvicorns_reloader_runs_without_a_drain(reload: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    uvicorn_server = Server(Config("hello_apps:drained_asgi", reload=reload, log_config=None))
    signal.signal(signal.SIGTERM, uvicorn_server.handle_exit)
    app = RecordingApp()
    lifespan_of(DrainMiddleware(app))
    assert (signal.getsignal(signal.SIGTERM) == uvicorn_server.handle_exit) is reload
    assert app.scopes == ["lifespan"]
    assert ("No drain: a server under --reload stops at once" in caplog.text) is reload


def test_an_invalid_option_is_an_error_when_the_middleware_is_made() -> None:
    with pytest.raises(ValueError, match=r"^invalid max 0: expected more than 0 seconds$"):
        DrainMiddleware(RecordingApp(), max=0)


def test_an_invalid_option_fails_the_startup_of_an_app_that_makes_its_middleware_in_the_lifespan() -> None:
    # uvicorn takes an exception in the lifespan for an app that has no lifespan, and starts.
    app = Starlette(middleware=[Middleware(DrainMiddleware, max=0)])
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await app({"type": "lifespan"}, receive_startup, send)
        with pytest.raises(ValueError, match=r"^invalid max 0"):
            await app({**HTTP_SCOPE}, receive_startup, send)

    asyncio.run(run())
    assert sent[0] == {"type": "lifespan.startup.failed", "message": "invalid max 0: expected more than 0 seconds"}


def test_the_command_is_uvicorns_own() -> None:
    command = [sys.executable, "-m", "podproof.drain.uvicorn", "--version"]
    script = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert script.stdout.startswith("Running uvicorn ")


PARENT = """
import multiprocessing, signal, time
from podproof.drain.uvicorn import forward_sigterm

signal.signal(signal.SIGTERM, lambda *_: None)
forward_sigterm()
child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
child.start()
signal.raise_signal(signal.SIGTERM)
child.join(0.2)
first = child.exitcode
signal.raise_signal(signal.SIGTERM)
child.join(30)
print(first, child.exitcode)
"""


def test_a_parent_process_forwards_the_second_sigterm() -> None:
    script = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True, timeout=60)
    assert script.stdout == f"None {-signal.SIGTERM}\n"
