"""What is tried on each server: a SIGTERM under load, a second SIGTERM, and a SIGTERM without traffic."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.process.drain.load import Connection, Load
from tests.process.drain.servers import serving


@dataclass(frozen=True)
class UnderLoad:
    """What came of a load that went on through SIGTERM."""

    answered: int
    failed: Counter[str]
    exited: float | None  # seconds from the last request; None: it had exited before


async def under_load(command: list[str], directory: Path, *, gap: float, before: float, after: float) -> UnderLoad:
    """Load the server for `before` seconds, send it SIGTERM, and go on for `after` seconds."""
    async with serving(command, directory, PODPROOF_DRAIN_GAP=str(gap)) as server:
        load, over = Load(server.port), asyncio.Event()
        calling = asyncio.create_task(load.run(over))
        await asyncio.sleep(before)
        server.terminate()
        await asyncio.sleep(after)
        early = server.process.returncode is not None
        over.set()
        await calling
        exited = await server.exited(within=gap + 10)
        return UnderLoad(load.answered, load.failed, None if early else exited - load.last)


@dataclass(frozen=True)
class SecondSigterm:
    """What came of requests in flight when a second SIGTERM ended the drain."""

    answers: list[str]  # status lines, or the names of errors
    exited: float  # seconds from the second SIGTERM


async def second_sigterm(command: list[str], directory: Path, *, requests: int, seconds: float) -> SecondSigterm:
    """Send SIGTERM twice while so many requests that last so long are in flight, the gap being a minute."""

    async def call(port: int) -> str:
        try:
            connection = await Connection.open(port)
            answer = await connection.get(f"/?seconds={seconds}")
            connection.close()
        except (OSError, EOFError) as error:
            return type(error).__name__
        return answer

    async with serving(command, directory, PODPROOF_DRAIN_GAP="60", PODPROOF_DRAIN_MAX="120") as server:
        calls = [asyncio.create_task(call(server.port)) for _ in range(requests)]
        await asyncio.sleep(seconds / 4)
        server.terminate()
        await asyncio.sleep(seconds / 4)
        server.terminate()
        then = time.monotonic()
        answers = await asyncio.gather(*calls)
        return SecondSigterm(answers, await server.exited(within=30) - then)


async def no_traffic(command: list[str], directory: Path, *, gap: float) -> float:
    """Return the seconds from SIGTERM to the exit."""
    async with serving(command, directory, PODPROOF_DRAIN_GAP=str(gap)) as server:
        then = time.monotonic()
        server.terminate()
        return await server.exited(within=gap + 10) - then
