"""What is measured on each server: a SIGTERM under load, a second SIGTERM, and a SIGTERM without traffic."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.process.drain.hello_apps import IN_FLIGHT, LOADED
from tests.process.drain.load_generator import LoadGenerator, get_once
from tests.process.drain.server_commands import PATIENCE, ServerStart, run_drained


@dataclass(frozen=True)
class LoadOutcome:
    """The outcome of a load that went on through SIGTERM."""

    succeeded: int
    failed: Counter[str]
    exited: float | None  # seconds from the last request; None: it had exited before


async def sigterm_under_load(
    command: list[str], directory: Path, *, idle_timeout: float, before: float, after: float
) -> LoadOutcome:
    """Load the server for `before` seconds, send it SIGTERM, and go on for `after` seconds."""
    async with run_drained(command, directory, idle_timeout=idle_timeout) as server:
        load, stop = LoadGenerator(server.port), asyncio.Event()
        running = asyncio.create_task(load.run(stop))
        await asyncio.sleep(before)
        server.terminate()
        await asyncio.sleep(after)
        exited_early = server.process.returncode is not None
        stop.set()
        await running
        exited = await server.wait_for_exit()
        return LoadOutcome(load.succeeded, load.failed, None if exited_early else exited - load.last_request)


@dataclass(frozen=True)
class SecondSigtermOutcome:
    """The outcome of requests that were in flight when a second SIGTERM ended the drain."""

    responses: list[str]  # status lines, or the names of errors
    exited: float  # seconds from the last response


async def second_sigterm(command: ServerStart, directory: Path, *, requests: int) -> SecondSigtermOutcome:
    """Send SIGTERM twice while so many requests are in flight; the drain alone would last longer than a test waits."""
    release = directory / "release"

    async def get(port: int) -> str:
        try:
            return await get_once(port, f"/?wait_for={release}")
        except (OSError, EOFError) as error:
            return type(error).__name__

    async with run_drained(command.drained, directory, idle_timeout=2 * PATIENCE, max=2 * PATIENCE) as server:
        if command.workers > 1:
            # A worker that gets SIGTERM while it starts ends without a drain: it has accepted nothing.
            await server.wait_for_log("Application startup complete", times=command.workers)
        in_flight = [asyncio.create_task(get(server.port)) for _ in range(requests)]
        await server.wait_for_log(IN_FLIGHT, times=requests)
        await server.begin_drain(command.workers)
        server.terminate()
        # gunicorn's hooks write the first line, uvicorn the second.
        stopping = "Stopping: a second SIGTERM" if "gunicorn" in command.drained else "Shutting down"
        await server.wait_for_log(stopping, times=command.workers)
        release.touch()
        responses = await asyncio.gather(*in_flight)
        responded = time.monotonic()
        exited = await server.wait_for_exit()
        release.unlink()
        return SecondSigtermOutcome(responses, exited - responded)


async def sigterm_without_traffic(command: list[str], directory: Path, *, idle_timeout: float) -> float:
    """Return the seconds from SIGTERM to the exit."""
    async with run_drained(command, directory, idle_timeout=idle_timeout, max=120) as server:
        if "gunicorn" in command:
            # A worker that gets SIGTERM right after its fork loses it, and is killed after the grace period of 30 s.
            await server.wait_for_log(LOADED, times=2)
        terminated = time.monotonic()
        server.terminate()
        return await server.wait_for_exit() - terminated
