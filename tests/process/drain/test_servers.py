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

from tests.process.drain.load import Connection
from tests.process.drain.rollout_trial import no_traffic, second_sigterm, under_load
from tests.process.drain.servers import COMMANDS, HOOKS, Server, serving

GAP = 0.5
BUSY = 3.0  # seconds that a server's own shutdown may take on a busy machine; the proof asks for 1.5


def on(*names: str) -> pytest.MarkDecorator:
    """Run the test on those of these servers that are installed."""
    return pytest.mark.parametrize("name", [name for name in names if name in COMMANDS])


every_server = on(*COMMANDS)


@every_server
def test_no_request_fails_through_a_sigterm(name: str, tmp_path: Path) -> None:
    trial = asyncio.run(under_load(COMMANDS[name].drained, tmp_path, gap=GAP, before=0.3, after=1.2))
    assert trial.failed == {}
    assert trial.answered > 100
    assert trial.exited is not None
    assert GAP < trial.exited < GAP + BUSY


def test_without_the_drain_requests_fail(tmp_path: Path) -> None:
    trial = asyncio.run(under_load(COMMANDS["gunicorn sync"].plain, tmp_path, gap=GAP, before=0.3, after=1.2))
    assert trial.failed.total() > 100


@every_server
def test_a_second_sigterm_ends_the_drain_once_requests_in_flight_are_answered(name: str, tmp_path: Path) -> None:
    trial = asyncio.run(second_sigterm(COMMANDS[name].drained, tmp_path, requests=2, seconds=0.8))
    assert trial.answers == ["HTTP/1.1 200 OK"] * 2
    assert 0.3 < trial.exited < 0.5 + BUSY


@on("gunicorn sync", "uvicorn")
def test_without_traffic_the_server_exits_after_one_gap(name: str, tmp_path: Path) -> None:
    assert GAP < asyncio.run(no_traffic(COMMANDS[name].drained, tmp_path, gap=GAP)) < GAP + BUSY


async def probe_until_exit(server: Server, agent: str) -> None:
    async with asyncio.timeout(10):
        while server.process.returncode is None:
            try:
                connection = await Connection.open(server.port)
                await connection.get(agent=agent)
                connection.close()
            except (OSError, EOFError):
                return
            await asyncio.sleep(GAP / 5)


@on("gunicorn gthread", "uvicorn")
def test_probes_do_not_reset_the_gap(name: str, tmp_path: Path) -> None:
    async def scene() -> float:
        async with serving(COMMANDS[name].drained, tmp_path, PODPROOF_DRAIN_GAP=str(GAP)) as server:
            server.terminate()
            then = time.monotonic()
            await probe_until_exit(server, "kube-probe/1.33")
            return await server.exited(within=5) - then

    assert GAP < asyncio.run(scene()) < GAP + BUSY


@on("gunicorn gthread", "gunicorn asgi", "gunicorn uvicorn-worker", "uvicorn")
def test_a_sticky_keep_alive_client_is_told_to_leave(name: str, tmp_path: Path) -> None:
    # gunicorn drops a Connection header that the app sets, and its asgi worker has no force_close.
    async def scene() -> tuple[bool, bool, bytes]:
        async with serving(COMMANDS[name].drained, tmp_path, PODPROOF_DRAIN_GAP="60") as server:
            sticky = await Connection.open(server.port)
            await sticky.get()
            before = sticky.kept
            server.terminate()
            await asyncio.sleep(0.2)
            await sticky.get()
            async with asyncio.timeout(10):
                rest = await sticky.reader.read()
            sticky.close()
            return before, sticky.kept, rest

    assert asyncio.run(scene()) == (True, False, b"")


def test_a_saturated_worker_is_not_idle_while_the_accept_queue_is_full(tmp_path: Path) -> None:
    async def call(port: int, target: str) -> str:
        connection = await Connection.open(port)
        answer = await connection.get(target)
        connection.close()
        return answer

    async def scene() -> list[str]:
        command = ["-m", "gunicorn", *HOOKS, "apps:wsgi"]
        async with serving(command, tmp_path, PODPROOF_DRAIN_GAP=str(GAP)) as server:
            calls = [asyncio.create_task(call(server.port, "/?seconds=1.2"))]
            await asyncio.sleep(0.2)
            calls += [asyncio.create_task(call(server.port, "/"))]
            server.terminate()
            answers = await asyncio.gather(*calls)
            await server.exited(within=GAP + 5)
            return answers

    assert asyncio.run(scene()) == ["HTTP/1.1 200 OK"] * 2


@on("gunicorn asgi", "gunicorn uvicorn-worker", "uvicorn")
def test_a_websocket_is_told_to_come_back_at_the_drains_end(name: str, tmp_path: Path) -> None:
    async def scene() -> tuple[str | bytes, int | None, float]:
        async with serving(COMMANDS[name].drained, tmp_path, PODPROOF_DRAIN_GAP=str(GAP)) as server:
            async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as websocket:
                server.terminate()
                then = time.monotonic()
                await websocket.send("still here?")
                echo = await websocket.recv()
                with pytest.raises(ConnectionClosed) as closed:
                    await websocket.recv()
            received = closed.value.rcvd
            return echo, received.code if received else None, await server.exited(within=GAP + 5) - then

    echo, code, exited = asyncio.run(scene())
    assert (echo, code) == ("still here?", 1012)
    assert GAP < exited < GAP + BUSY


def test_an_init_process_that_signals_the_whole_group_is_told_of(tmp_path: Path) -> None:
    async def scene() -> tuple[str, str]:
        command = ["-m", "gunicorn", *HOOKS, "apps:wsgi"]
        async with serving(command, tmp_path, PODPROOF_DRAIN_GAP="1.5") as server:
            os.killpg(server.process.pid, signal.SIGTERM)
            await asyncio.sleep(0.7)
            connection = await Connection.open(server.port)
            answer = await connection.get()
            connection.close()
            await server.exited(within=10)
            return answer, server.log.read_text()

    answer, log = asyncio.run(scene())
    assert answer == "HTTP/1.1 200 OK"
    assert "dumb-init --single-child" in log


async def logged(server: Server, text: str, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while server.log.read_text().count(text) < times:  # noqa: ASYNC110 (a file has no event)
            await asyncio.sleep(0.05)


def test_after_a_usr2_upgrade_the_old_master_leaves_at_once_and_the_new_one_drains(tmp_path: Path) -> None:
    async def scene() -> tuple[float, str]:
        command = ["-m", "gunicorn", *HOOKS, "--pid", str(tmp_path / "pid"), "apps:wsgi"]
        async with serving(command, tmp_path, PODPROOF_DRAIN_GAP="60") as server:
            server.process.send_signal(signal.SIGUSR2)
            await logged(server, "Booting worker", times=2)
            successor = int((tmp_path / "pid.2").read_text())
            then = time.monotonic()
            server.terminate()
            exited = await server.exited(within=20) - then
            connection = await Connection.open(server.port)
            answer = await connection.get()
            connection.close()
            os.kill(successor, signal.SIGTERM)
            await logged(server, "Draining until")
            return exited, answer

    exited, answer = asyncio.run(scene())
    assert exited < BUSY
    assert answer == "HTTP/1.1 200 OK"
