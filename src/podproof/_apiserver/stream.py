"""Responses that are read line by line as they arrive: lists that are too long for one piece, and watches."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import ETIMEDOUT
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from podproof._apiserver.permissions import Permission, explain_denial
from podproof._apiserver.response import (
    ConnectionFailed,
    LineTooLong,
    StreamSilent,
    UnexpectedStatus,
    describe_error,
    is_json,
    parse_retry_after,
    release,
)
from podproof.errors import Unavailable

CONNECT_TIMEOUT = 5.0
RESPONSE_TIMEOUT = 30.0
"""Seconds until a response begins: what Kubernetes' service level objective grants a list of the whole cluster."""

MAX_LINE = 8 * 1024 * 1024
"""The longest line read, in bytes. etcd holds no object above 1.5 MiB, and a watch sends one in a line."""

_PIECE = 65536


class Keepalive(NamedTuple):
    """When a connection is found to be dead at the other end, as after the failure of a node or a load balancer.

    By default within 15 s: a probe after `idle` seconds of silence, one more each `interval`, and the end when `probes`
    of them, or what was sent for `timeout` seconds, are not acknowledged. Linux has all of them, macOS the first under
    another name; where a system lacks one, it takes longer, up to the read timeout.
    """

    idle: int = 5
    interval: int = 3
    probes: int = 3
    timeout: float = 12.0

    def options(self) -> Mapping[str, int]:
        """Return the TCP options by name (tcp(7))."""
        return {
            "TCP_KEEPIDLE": self.idle,
            "TCP_KEEPALIVE": self.idle,
            "TCP_KEEPINTVL": self.interval,
            "TCP_KEEPCNT": self.probes,
            "TCP_USER_TIMEOUT": int(self.timeout * 1000),
        }


KEEPALIVE = Keepalive()


class StreamSource(Protocol):
    """What opens responses: one process's configuration and credential."""

    def make_pool(self, classes: Mapping[str, type[urllib3.HTTPConnectionPool]]) -> urllib3.HTTPConnectionPool:
        """Return a new pool of connections to the API server, of the class for its URL's scheme."""

    def open(
        self, pool: urllib3.HTTPConnectionPool, path: str, *, connect_timeout: float, response_timeout: float
    ) -> BaseHTTPResponse:
        """Return the response to a GET as soon as its headers are there."""


class APIStream:
    """GETs responses line by line as they arrive, one at a time, on a connection of its own.

    That connection is kept from one response to the next, if the response before was read to its end. One thread
    reads; any thread can `close`. A rejected credential of ours is loaded anew once a GET, as `APIServerClient` does:
    `source` returns what is configured now, `discard` has it load that anew.
    """

    def __init__(
        self,
        source: Callable[[], StreamSource],
        discard: Callable[[Any], None],
        *,
        connect_timeout: float,
        response_timeout: float,
        read_timeout: float,
        keepalive: Keepalive = KEEPALIVE,
    ) -> None:
        self._source = source
        self._discard = discard
        self._connect_timeout = connect_timeout
        self._response_timeout = response_timeout
        self._read_timeout = read_timeout
        self._keepalive = keepalive
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False
        self._connected_by: StreamSource | None = None
        self._pool: urllib3.HTTPConnectionPool | None = None

    @contextmanager
    def get(self, path: str, permission: Permission, *, max_line: int = MAX_LINE) -> Iterator[Iterator[bytes]]:
        """Return a context whose value yields the lines of the response, without their ends.

        Raises Unavailable if our credential is rejected or lacks the permission, UnexpectedStatus for another status
        than 200, StreamSilent, LineTooLong for a line of more than `max_line` bytes, ConnectionFailed.
        """
        response = self._open(path, permission)
        try:
            yield _read_lines(response, max_line)
        finally:
            release(response)

    def close(self) -> None:
        """Close the connection, from any thread: one that reads gets ConnectionFailed, and so does each later GET."""
        with self._lock:
            self._closed = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            # Not close(), which would wait for the thread that reads, nor SSLSocket's own shutdown, which frees the
            # state of TLS that this thread uses.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _attach(self, connected: socket.socket) -> None:
        """Keep the socket of a new connection, to shut it down."""
        with self._lock:
            self._socket = getattr(connected, "socket", connected)  # TLS within TLS, to a proxy: the outer one
            set_keepalive(self._socket, self._keepalive)
            if self._closed:
                self._shut_down()

    def _wait_longer(self) -> None:
        """Have the body's pieces wait for the read timeout, instead of the one for the headers."""
        with self._lock, suppress(OSError):  # shut down meanwhile: the first read finds that out
            cast("socket.socket", self._socket).settimeout(self._read_timeout)

    def _open(self, path: str, permission: Permission) -> BaseHTTPResponse:
        reloaded = False
        while True:
            if self._closed:
                raise ConnectionFailed("the stream is closed")
            source, pool = self._connect()
            response = source.open(
                pool, path, connect_timeout=self._connect_timeout, response_timeout=self._response_timeout
            )
            if response.status == HTTPStatus.OK and is_json(response):
                self._wait_longer()
                return response
            response.close()
            if response.status == HTTPStatus.OK:
                raise ConnectionFailed("status 200 without JSON: not from an API server")
            if response.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise UnexpectedStatus(response.status, parse_retry_after(response))
            if reloaded:
                raise Unavailable(explain_denial(response.status, permission))
            reloaded = True
            self._discard(source)

    def _connect(self) -> tuple[StreamSource, urllib3.HTTPConnectionPool]:
        """Return this process's configuration and credential, and our pool, a new one for a new configuration."""
        source = self._source()
        if self._pool is None or source is not self._connected_by:
            self._connected_by, self._pool = source, source.make_pool(_pool_classes(self._attach))
        return source, self._pool


def _read_lines(response: BaseHTTPResponse, max_line: int) -> Iterator[bytes]:
    """Yield lines without their ends, the last one even if it has none."""
    begun: list[bytes] = []
    size = 0
    while piece := _read_piece(response):
        *ends, rest = piece.split(b"\n")
        for end in ends:
            if size + len(end) > max_line:
                raise LineTooLong(f"a line longer than {max_line} bytes")
            begun.append(end)
            yield b"".join(begun)
            begun.clear()
            size = 0
        begun.append(rest)
        size += len(rest)
        if size > max_line:
            raise LineTooLong(f"a line longer than {max_line} bytes")
    if size:
        yield b"".join(begun)


def _read_piece(response: BaseHTTPResponse) -> bytes:
    try:
        return response.read1(_PIECE)
    except ReadTimeoutError as error:
        if getattr(error.__cause__, "errno", None) == ETIMEDOUT:  # the system's own: TCP has given the connection up
            raise ConnectionFailed("the other end of the connection does not respond any more") from None
        raise StreamSilent("nothing came for the whole read timeout") from None
    except (HTTPError, OSError, ValueError) as error:
        raise ConnectionFailed(f"connection failed with {describe_error(error)}") from None


def set_keepalive(connected: socket.socket, keepalive: Keepalive, names: Any = socket) -> None:
    """Have a socket notice a dead connection, as far as the system can."""
    known = [(getattr(names, name), value) for name, value in keepalive.options().items() if hasattr(names, name)]
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *((socket.IPPROTO_TCP, *option) for option in known)]
    for option in options:
        with suppress(OSError):  # a sandbox may lack one that the system's headers have
            connected.setsockopt(*option)


def _pool_classes(attach: Callable[[socket.socket], None]) -> Mapping[str, type[urllib3.HTTPConnectionPool]]:
    """Return pools of connections that hand over their socket once it is connected."""

    class AttachedHTTPConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            attach(self.sock)

    class AttachedHTTPSConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            attach(self.sock)

    class AttachedHTTPPool(urllib3.HTTPConnectionPool):
        ConnectionCls = AttachedHTTPConnection

    class AttachedHTTPSPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = AttachedHTTPSConnection

    return {"http": AttachedHTTPPool, "https": AttachedHTTPSPool}
