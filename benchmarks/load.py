"""A load generator that costs next to nothing: raw sockets, kept alive, each with one request at a time."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What is sent again and again. A WebSocket handshake is responded to with 101, on a connection of its own."""

    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    websocket: bool = False

    def encode(self, port: int) -> bytes:
        """Return the bytes of the request."""
        headers = {"Host": f"127.0.0.1:{port}", **self.headers}
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        if self.websocket:
            key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
            headers |= {"Connection": "Upgrade", "Upgrade": "websocket", **key}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


class LoopbackLoad:
    """Connections to a server on loopback that all send the same request."""

    def __init__(self, port: int, request: LoadRequest, connections: int) -> None:
        self._request = request.encode(port)
        self._websocket = request.websocket
        self._port = port
        self._sockets: list[socket.socket | None] = [None] * connections

    def wait(self, seconds: float) -> None:
        """Return when the server listens. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            if time.monotonic() > end:
                raise TimeoutError("the server does not listen")
            time.sleep(0.05)

    def send(self, count: int) -> int:
        """Send `count` requests on each connection, and return how many were sent in all.

        Raises RuntimeError for a response that is not a whole 200.
        """
        for _ in range(count):
            # All are sent before one is read: the server is always busy.
            for index, found in enumerate(self._sockets):
                connection = found or self._connect()
                connection.sendall(self._request)
                self._sockets[index] = connection
            for index, sent in enumerate(self._sockets):
                if sent is not None and _read(sent, websocket=self._websocket):
                    sent.close()
                    self._sockets[index] = None
        return count * len(self._sockets)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            if connection is not None:
                connection.close()


def _read(connection: socket.socket, *, websocket: bool) -> bool:
    """Read one response, and return True if its connection is not to be used again."""
    data = connection.recv(65536)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _more(connection)
    head = data[: end + 2]
    if websocket and head.startswith(b"HTTP/1.1 101 "):
        return True
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"unexpected response {head[:40]!r}")
    length = _LENGTH.search(head)
    if length is None:
        raise RuntimeError("the response has no Content-Length")
    whole = end + 4 + int(length[1])
    while len(data) < whole:
        data += _more(connection)
    return _CLOSES.search(head) is not None


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise RuntimeError("the server closed the connection in the middle of a response")
    return data
