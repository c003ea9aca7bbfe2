"""Servers as their users start them, with the drain and without, and a running one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.process.drain.load_generator import get_once
from tests.support.server_process import free_port

HERE = Path(__file__).parent
HOOKS = ("--config", "python:podproof.drain.gunicorn")
POLL = 0.05  # seconds

# A server is given up for hung after so many seconds. No test measures by it: it is only reached when one fails.
PATIENCE = 60.0


@dataclass(frozen=True)
class ServerStart:
    """How a server is started, after `python`; `workers` is how many of its processes drain by themselves."""

    plain: list[str]
    drained: list[str]
    workers: int = 1


def gunicorn(app: str, *options: str) -> ServerStart:
    command = ["-m", "gunicorn", "--workers", "2", *options]
    return ServerStart([*command, app], [*command, *HOOKS, app])


COMMANDS = {
    "gunicorn sync": gunicorn("hello_apps:hello_wsgi"),
    "gunicorn gthread": gunicorn("hello_apps:hello_wsgi", "--worker-class", "gthread", "--threads", "4"),
    "gunicorn asgi": gunicorn("hello_apps:hello_asgi", "--worker-class", "asgi"),
    "gunicorn uvicorn-worker": gunicorn("hello_apps:hello_asgi", "--worker-class", "uvicorn_worker.UvicornWorker"),
    "uvicorn": ServerStart(["-m", "uvicorn", "hello_apps:hello_asgi"], ["-m", "uvicorn", "hello_apps:drained_asgi"]),
    "uvicorn --workers": ServerStart(
        ["-m", "uvicorn", "--workers", "2", "hello_apps:hello_asgi"],
        ["-m", "podproof.drain.uvicorn", "--workers", "2", "hello_apps:drained_asgi"],
        workers=2,
    ),
}
if find_spec("gunicorn.workers.gasgi") is None:  # gunicorn 22 and 23
    del COMMANDS["gunicorn asgi"]


@dataclass
class RunningServer:
    """One running server."""

    port: int
    process: asyncio.subprocess.Process
    log: Path

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def begin_drain(self, workers: int = 1) -> None:
        """Send SIGTERM; return once so many processes drain."""
        self.terminate()
        await self.wait_for_log("Draining until", times=workers)

    async def wait_for_log(self, text: str, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.log.read_text().count(text) < times:  # noqa: ASYNC110 (a file has no event)
                await asyncio.sleep(POLL)

    async def wait_for_exit(self) -> float:
        """Return the time of its exit, on the monotonic clock."""
        async with asyncio.timeout(PATIENCE):
            await self.process.wait()
        return time.monotonic()


@asynccontextmanager
async def run_drained(command: list[str], directory: Path, **options: object) -> AsyncIterator[RunningServer]:
    """Run a server on a free port, from its first response on; it is killed with all that it forked at the end.

    The options are those of the drain, in lower case.
    """
    port = free_port()
    bind = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in command else ["--port", str(port)]
    log = directory / f"server-{port}.log"
    # A server that is killed while it writes its coverage would leave half a file.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PODPROOF_"))}
    variables = {f"PODPROOF_DRAIN_{name.upper()}": str(value) for name, value in options.items()}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *bind,
            cwd=HERE,
            env={**inherited, **variables, "HOME": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await _wait_until_ready(port, process, log)
        yield RunningServer(port, process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _wait_until_ready(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            assert process.returncode is None, f"it ended; see {log}"
            try:
                await get_once(port)
            except (OSError, EOFError):
                await asyncio.sleep(POLL)
            else:
                return
