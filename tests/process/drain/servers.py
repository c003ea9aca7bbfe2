"""The servers under proof, as their users start them, with the drain and without."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.process.drain.load import Connection

HERE = Path(__file__).parent
HOOKS = ("--config", "python:podproof.drain.gunicorn")


@dataclass(frozen=True)
class Command:
    """How a server is started, after `python`."""

    plain: list[str]
    drained: list[str]


def gunicorn(app: str, *options: str) -> Command:
    command = ["-m", "gunicorn", "--workers", "2", *options]
    return Command([*command, app], [*command, *HOOKS, app])


COMMANDS = {
    "gunicorn sync": gunicorn("apps:wsgi"),
    "gunicorn gthread": gunicorn("apps:wsgi", "--worker-class", "gthread", "--threads", "4"),
    "gunicorn asgi": gunicorn("apps:asgi", "--worker-class", "asgi"),
    "gunicorn uvicorn-worker": gunicorn("apps:asgi", "--worker-class", "uvicorn_worker.UvicornWorker"),
    "uvicorn": Command(["-m", "uvicorn", "apps:asgi"], ["-m", "uvicorn", "apps:drained"]),
    "uvicorn --workers": Command(
        ["-m", "uvicorn", "--workers", "2", "apps:asgi"],
        ["-m", "podproof.drain.uvicorn", "--workers", "2", "apps:drained"],
    ),
}
if find_spec("gunicorn.workers.gasgi") is None:  # gunicorn 22 and 23
    del COMMANDS["gunicorn asgi"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One running server."""

    port: int
    process: asyncio.subprocess.Process
    log: Path

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exited(self, within: float) -> float:
        """Return the moment of its exit; TimeoutError if it does not within so many seconds."""
        async with asyncio.timeout(within):
            await self.process.wait()
        return time.monotonic()


@asynccontextmanager
async def serving(command: list[str], directory: Path, **environ: str) -> AsyncIterator[Server]:
    """Run it on a free port, ready when it first answers; killed with all it forked at the end."""
    port = free_port()
    bind = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in command else ["--port", str(port)]
    log = directory / f"server-{port}.log"
    # A server that is killed while it writes its coverage would leave half a file.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *bind,
            cwd=HERE,
            env={**inherited, "HOME": str(directory), **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await _ready(port, process, log)
        yield Server(port, process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _ready(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(30):
        while True:
            assert process.returncode is None, f"it ended; see {log}"
            try:
                connection = await Connection.open(port)
                await connection.get(keep=False)
                connection.close()
            except (OSError, EOFError):
                await asyncio.sleep(0.05)
            else:
                return
