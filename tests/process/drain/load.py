"""A bounded load on the loopback: callers on new connections, and callers that keep theirs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

PAUSE = 0.04  # seconds between a caller's requests: eight callers make about 190 a second


@dataclass
class Load:
    """What came of the requests."""

    port: int
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    last: float = 0.0

    async def run(self, until: asyncio.Event, *, fresh: int = 4, keeping: int = 4) -> None:
        """Call until told to stop."""
        callers = [self._call(until, keep=number >= fresh) for number in range(fresh + keeping)]
        await asyncio.gather(*callers)

    async def _call(self, until: asyncio.Event, *, keep: bool) -> None:
        connection: Connection | None = None
        while not until.is_set():
            self.last = time.monotonic()
            try:
                connection = connection or await Connection.open(self.port)
                async with asyncio.timeout(10):
                    await connection.get("/", keep=keep)
                self.answered += 1
            except (OSError, ValueError, EOFError, TimeoutError) as error:
                self.failed[type(error).__name__] += 1
                if connection:
                    connection.close()
                connection = None
            if connection and not connection.kept:
                connection.close()
                connection = None
            await asyncio.sleep(PAUSE)
        if connection:
            connection.close()


@dataclass
class Connection:
    """One HTTP/1.1 connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    kept: bool = True

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, target: str = "/", *, keep: bool = True, agent: str = "load") -> str:
        """Return the status line of an answer; ValueError if it is not the whole "hello" that the apps say."""
        connection = "keep-alive" if keep else "close"
        self.writer.write(
            f"GET {target} HTTP/1.1\r\nHost: bob\r\nUser-Agent: {agent}\r\nConnection: {connection}\r\n\r\n".encode()
        )
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.kept = keep and headers.get("connection", "").lower() != "close"
        body = await self.reader.readexactly(int(headers["content-length"]))
        if not status.startswith("HTTP/1.1 200") or body != b"hello":
            raise ValueError(f"{status}: {body!r}")
        return status

    def close(self) -> None:
        self.writer.close()
