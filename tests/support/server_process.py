"""Run a server as its users start it, on a free port, and send requests to it over real sockets."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 60
"""A generous deadline for whatever a server has to do: tests wait for a condition, and fail after this time."""


@dataclass(frozen=True)
class WireResponse:
    """A response as it came over the wire; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class ServerProcess:
    """A running server that listens on a port of 127.0.0.1, on a Unix socket, or on both."""

    port: int
    socket_path: Path
    log: Path
    pid: int

    def get(
        self, source: str, token: str | None, path: str = "/whoami", headers: Mapping[str, str] = {}
    ) -> WireResponse:
        """Send a GET request from a source address."""
        return self.request("GET", source, path, headers, token=token)

    def request(
        self,
        method: str,
        source: str,
        path: str,
        headers: Mapping[str, str] = {},
        *,
        token: str | None = None,
        body: bytes | None = None,
    ) -> WireResponse:
        """Send a request from a source address, over a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS, source_address=(source, 0))
        credential = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            connection.request(method, path, body, {**credential, **headers})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return WireResponse(response.status, names, response.read())
        finally:
            connection.close()

    def send(self, source: str, data: bytes) -> bytes:
        """Send bytes from a source address, and return everything received until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS, (source, 0)) as connection:
            return _exchange(connection, data)

    def send_over_unix_socket(self, data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(str(self.socket_path))
            return _exchange(connection, data)

    def is_up(self) -> bool:
        """Return True if the server answers a request for /healthz."""
        try:
            if self.socket_path.exists():
                return self.send_over_unix_socket(raw_request("/healthz")) != b""
            return self.send("127.0.0.1", raw_request("/healthz")) != b""
        except OSError:
            return False


def raw_request(path: str, *lines: str, method: str = "GET", host: str = "bob") -> bytes:
    """Return the bytes of a request with these header lines, which asks the server to close the connection."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode("latin-1")


def free_port() -> int:
    """Return a port of 127.0.0.1 that no other test is given until this process ends.

    It stays reserved by a socket that is bound and does not listen. Linux lets a server bind the same port because both
    sockets have SO_REUSEADDR (SO_REUSEPORT is granian's); a test process that looks for a free port has neither when it
    binds, so the two never share one. The range lies below that of outgoing connections.
    """
    while True:
        port = secrets.choice(range(10_000, 30_000))
        with suppress(OSError), socket.socket() as reservation:
            reservation.bind(("127.0.0.1", port))
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reservation.detach()
            return port


@contextmanager
def run_server(command: list[str], folder: Path, **environ: str) -> Iterator[ServerProcess]:
    """Run `python` with a command, from its first response to its exit after SIGTERM.

    `{port}` and `{socket}` in the command are replaced by a free port and the path of a Unix socket.
    """
    port, socket_path = free_port(), folder / "socket"
    filled = [part.replace("{port}", str(port)).replace("{socket}", str(socket_path)) for part in command]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PODPROOF_"))}
    given = {name: value.replace("{port}", str(port)) for name, value in environ.items()}
    process_environ = inherited | {"PODPROOF_DRAIN_GAP": "0.1"} | given
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *filled], cwd=ROOT, env=process_environ, stdout=log, stderr=log)
    server = ServerProcess(port, socket_path, folder / "log", process.pid)
    try:
        end = time.monotonic() + TIMEOUT_SECONDS
        while not server.is_up():
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(TIMEOUT_SECONDS)
        finally:
            process.kill()


def _exchange(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received
