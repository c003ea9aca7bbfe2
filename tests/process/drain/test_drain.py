"""The drain on real servers: short forms of `proof.py`, and what only a real server shows."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.process.drain.hello_apps import IN_FLIGHT
from tests.process.drain.load_generator import LoadConnection, get_once
from tests.process.drain.server_commands import COMMANDS, HOOKS, PATIENCE, RunningServer, run_drained
from tests.process.drain.sigterm_runs import second_sigterm, sigterm_under_load, sigterm_without_traffic

OK = "HTTP/1.1 200 OK"


def on(*names: str) -> pytest.MarkDecorator:
    """Run the test on those of these servers that are installed."""
    return pytest.mark.parametrize("name", [name for name in names if name in COMMANDS])


on_every_server = on(*COMMANDS)

# Seconds: a drain that does not end by itself while a test waits.
LONG = 2 * PATIENCE

# Seconds. The load pauses for much less, even on a busy machine: a load that pauses for longer would end the drain.
IDLE_TIMEOUT = 1.5


@on_every_server
def test_no_request_fails_through_a_sigterm(name: str, tmp_path: Path) -> None:
    command = COMMANDS[name].drained
    outcome = asyncio.run(sigterm_under_load(command, tmp_path, idle_timeout=IDLE_TIMEOUT, before=0.3, after=2))
    assert outcome.failed == {}
    assert outcome.succeeded > 100
    assert outcome.exited is not None
    assert outcome.exited > IDLE_TIMEOUT


def test_without_the_drain_requests_fail(tmp_path: Path) -> None:
    command = COMMANDS["gunicorn sync"].plain
    outcome = asyncio.run(sigterm_under_load(command, tmp_path, idle_timeout=IDLE_TIMEOUT, before=0.3, after=1))
    assert outcome.failed.total() > 10


@on_every_server
def test_a_second_sigterm_ends_the_drain_once_requests_in_flight_have_their_response(name: str, tmp_path: Path) -> None:
    outcome = asyncio.run(second_sigterm(COMMANDS[name], tmp_path, requests=2))
    assert outcome.responses == [OK] * 2


@on("gunicorn sync", "uvicorn")
def test_without_traffic_the_server_exits_after_the_idle_timeout(name: str, tmp_path: Path) -> None:
    assert asyncio.run(sigterm_without_traffic(COMMANDS[name].drained, tmp_path, idle_timeout=0.5)) > 0.5


@on("gunicorn sync", "uvicorn")
def test_with_an_idle_timeout_of_0_the_server_exits_at_once(name: str, tmp_path: Path) -> None:
    assert asyncio.run(sigterm_without_traffic(COMMANDS[name].drained, tmp_path, idle_timeout=0)) < 15


async def probe_until_exit(server: RunningServer, user_agent: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while server.process.returncode is None:
            try:
                await get_once(server.port, user_agent=user_agent)
            except (OSError, EOFError):
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("name", "user_agent"),
    [
        ("gunicorn gthread", "kube-probe/1.33"),
        ("uvicorn", "ELB-HealthChecker/2.0"),
        ("gunicorn uvicorn-worker", "GoogleHC/1.0"),
    ],
)
def test_health_checks_do_not_keep_the_drain_open(name: str, user_agent: str, tmp_path: Path) -> None:
    async def run() -> float:
        async with run_drained(COMMANDS[name].drained, tmp_path, idle_timeout=0.5, max=LONG) as server:
            terminated = time.monotonic()
            server.terminate()
            await probe_until_exit(server, user_agent)
            return await server.wait_for_exit() - terminated

    assert 0.5 < asyncio.run(run()) < PATIENCE


@on("gunicorn gthread", "gunicorn asgi", "gunicorn uvicorn-worker", "uvicorn")
def test_a_kept_connection_is_closed_by_its_next_response(name: str, tmp_path: Path) -> None:
    # gunicorn drops a Connection header that the app sets, and its asgi worker has no force_close.
    async def run() -> tuple[bool, bool, bytes]:
        async with run_drained(COMMANDS[name].drained, tmp_path, idle_timeout=LONG, max=LONG) as server:
            connection = await LoadConnection.open(server.port)
            await connection.get()
            kept_before = connection.kept
            await server.begin_drain()
            await connection.get()
            async with asyncio.timeout(PATIENCE / 2):
                rest = await connection.reader.read()
            connection.close()
            return kept_before, connection.kept, rest

    assert asyncio.run(run()) == (True, False, b"")


def test_a_connection_in_the_accept_queue_keeps_the_drain_open(tmp_path: Path) -> None:
    release = tmp_path / "release"

    async def run() -> list[str]:
        command = ["-m", "gunicorn", "--workers", "1", *HOOKS, "hello_apps:hello_wsgi"]
        async with run_drained(command, tmp_path, idle_timeout=0.3, max=PATIENCE) as server:
            in_flight = [asyncio.create_task(get_once(server.port, f"/?wait_for={release}"))]
            await server.wait_for_log(IN_FLIGHT)
            waiting = await LoadConnection.open(server.port)
            in_flight += [asyncio.create_task(waiting.get(keep=False))]
            await server.begin_drain()
            await asyncio.sleep(0.9)  # three idle timeouts
            release.touch()
            statuses = await asyncio.gather(*in_flight)
            waiting.close()
            await server.wait_for_exit()
            return statuses

    assert asyncio.run(run()) == [OK] * 2


@on("gunicorn asgi", "gunicorn uvicorn-worker", "uvicorn")
def test_a_websocket_is_open_in_the_drain_and_closed_with_service_restart_at_its_end(name: str, tmp_path: Path) -> None:
    async def run() -> tuple[str | bytes, int | None]:
        async with run_drained(COMMANDS[name].drained, tmp_path, idle_timeout=LONG, max=LONG) as server:
            async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as websocket:
                await server.begin_drain()
                await websocket.send("still here?")
                echo = await websocket.recv()
                server.terminate()
                with pytest.raises(ConnectionClosed) as closed:
                    await websocket.recv()
            await server.wait_for_exit()
            received = closed.value.rcvd
            return echo, received.code if received else None

    assert asyncio.run(run()) == ("still here?", 1012)


def test_an_init_process_that_signals_the_whole_group_is_logged(tmp_path: Path) -> None:
    async def run() -> tuple[str, str]:
        command = ["-m", "gunicorn", "--workers", "1", *HOOKS, "hello_apps:hello_wsgi"]
        async with run_drained(command, tmp_path, idle_timeout=3) as server:
            os.killpg(server.process.pid, signal.SIGTERM)
            await server.wait_for_log("Booting worker", times=2)
            status = await get_once(server.port)
            await server.wait_for_log("dumb-init")
            server.terminate()
            await server.wait_for_exit()
            return status, server.log.read_text()

    status, log = asyncio.run(run())
    assert status == OK
    assert "dumb-init --single-child" in log


def test_after_a_usr2_upgrade_the_old_master_exits_at_once_and_the_new_one_drains(tmp_path: Path) -> None:
    async def run() -> str:
        command = ["-m", "gunicorn", *HOOKS, "--pid", str(tmp_path / "pid"), "hello_apps:hello_wsgi"]
        async with run_drained(command, tmp_path, idle_timeout=LONG, max=LONG) as server:
            server.process.send_signal(signal.SIGUSR2)
            await server.wait_for_log("Booting worker", times=2)
            successor = int((tmp_path / "pid.2").read_text())
            server.terminate()
            await server.wait_for_exit()
            status = await get_once(server.port)
            os.kill(successor, signal.SIGTERM)
            await server.wait_for_log("Draining until")
            return status

    assert asyncio.run(run()) == OK


RELOADED_APP = """
from hello_apps import hello_asgi
from podproof.drain.uvicorn import DrainMiddleware

print("serving version {version}", flush=True)
app = DrainMiddleware(hello_asgi)
"""


def test_uvicorns_reloader_serves_new_code_and_exits_on_ctrl_c_without_a_drain(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()

    def write_version(version: int) -> None:
        written = tmp_path / "written.py"
        written.write_text(RELOADED_APP.format(version=version))
        written.replace(source / "reloaded_app.py")

    async def run() -> str:
        write_version(1)
        command = [
            "-m",
            "uvicorn",
            "--reload",
            "--reload-dir",
            str(source),
            "--app-dir",
            str(source),
            "reloaded_app:app",
        ]
        async with run_drained(command, tmp_path, idle_timeout=LONG, max=LONG) as server:
            # The reloader's first look at the files, some time after the start, takes them as they are.
            while "detected changes" not in server.log.read_text():
                write_version(2)
                await asyncio.sleep(1)
            await server.wait_for_log("serving version 2")
            await server.wait_for_log("Application startup complete", times=2)
            await get_once(server.port)
            server.process.send_signal(signal.SIGINT)
            await server.wait_for_exit()
            return server.log.read_text()

    log = asyncio.run(run())
    assert log.count("No drain: a server under --reload stops at once") == log.count("Started server process") >= 2
    assert "Draining until" not in log
