"""Servers as their users start them, on free ports, and what is asked of them over real sockets."""

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
SECONDS = 60  # that anybody waits at the most for a server


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire; its headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A running server: on a port of 127.0.0.1, on a Unix socket, or on both."""

    port: int
    path: Path
    log: Path
    pid: int

    def get(self, source: str, token: str | None, path: str = "/whoami", headers: Mapping[str, str] = {}) -> Answer:
        """Get something from an address."""
        return self.ask("GET", source, path, headers, token=token)

    def ask(
        self,
        method: str,
        source: str,
        path: str,
        headers: Mapping[str, str] = {},
        *,
        token: str | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Ask from an address."""
        credential = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS, source_address=(source, 0))
        try:
            connection.request(method, path, body, {**credential, **headers})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def send(self, source: str, request: bytes) -> bytes:
        """Send bytes from an address, and return all that comes back until the server hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), SECONDS, (source, 0)) as connection:
            return _exchange(connection, request)

    def send_by_unix_socket(self, request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(self.path))
            return _exchange(connection, request)

    def is_up(self) -> bool:
        try:
            if self.path.exists():
                self.send_by_unix_socket(request("/healthz"))
            else:
                self.send("127.0.0.1", request("/healthz"))
        except OSError:
            return False
        return True


def request(path: str, *lines: str, method: str = "GET", host: str = "bob") -> bytes:
    """Return a request of these header lines, byte for byte, after whose answer the connection ends."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode("latin-1")


def free_port() -> int:
    """Return a port that is free, and not among those that outgoing connections are given meanwhile."""
    while True:
        port = secrets.choice(range(10_000, 30_000))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving(command: list[str], folder: Path, **environ: str) -> Iterator[Server]:
    """Run `python` with a command in which `{port}` and `{path}` are filled in, from when it answers to its SIGTERM."""
    port, path = free_port(), folder / "socket"
    filled = [part.replace("{port}", str(port)).replace("{path}", str(path)) for part in command]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PODPROOF_"))}
    given = inherited | {"PODPROOF_DRAIN_GAP": "0.1"} | environ
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *filled], cwd=ROOT, env=given, stdout=log, stderr=log)
    server = Server(port, path, folder / "log", process.pid)
    try:
        end = time.monotonic() + SECONDS
        while not server.is_up():
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(SECONDS)
        finally:
            process.kill()


def _exchange(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received
