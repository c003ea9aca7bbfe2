"""A bounded load on the loopback: clients on new connections, and clients that keep theirs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

PAUSE = 0.04  # seconds between a client's requests: eight clients make about 190 a second


@dataclass
class LoadGenerator:
    """Clients of the server on `port`, and the outcomes of their requests."""

    port: int
    succeeded: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    last_request: float = 0.0

    async def run(self, until: asyncio.Event, *, on_new_connections: int = 4, on_kept_connections: int = 4) -> None:
        """Send requests until the event is set."""
        count = on_new_connections + on_kept_connections
        clients = [self._send_requests(until, keep=number >= on_new_connections) for number in range(count)]
        await asyncio.gather(*clients)

    async def _send_requests(self, until: asyncio.Event, *, keep: bool) -> None:
        connection: LoadConnection | None = None
        while not until.is_set():
            self.last_request = time.monotonic()
            try:
                connection = connection or await LoadConnection.open(self.port)
                async with asyncio.timeout(10):
                    await connection.get("/", keep=keep)
                self.succeeded += 1
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
class LoadConnection:
    """One HTTP/1.1 connection; `kept` tells whether the server lets it send another request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    kept: bool = True

    @classmethod
    async def open(cls, port: int) -> LoadConnection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, target: str = "/", *, keep: bool = True, user_agent: str = "load") -> str:
        """Return the response's status line; raise ValueError if it is not the whole "hello" of the apps."""
        connection = "keep-alive" if keep else "close"
        headers = f"Host: bob\r\nUser-Agent: {user_agent}\r\nConnection: {connection}\r\n"
        self.writer.write(f"GET {target} HTTP/1.1\r\n{headers}\r\n".encode())
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        received = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.kept = keep and received.get("connection", "").lower() != "close"
        body = await self.reader.readexactly(int(received["content-length"]))
        if not status.startswith("HTTP/1.1 200") or body != b"hello":
            raise ValueError(f"{status}: {body!r}")
        return status

    def close(self) -> None:
        self.writer.close()


async def get_once(port: int, target: str = "/", user_agent: str = "load") -> str:
    """Return the status line of the response to one request on its own connection."""
    connection = await LoadConnection.open(port)
    try:
        return await connection.get(target, keep=False, user_agent=user_agent)
    finally:
        connection.close()
