"""The emulated API server's HTTP: a socket, a thread a connection, TLS, keep-alive, and nobody left at the end."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

JSON = "application/json"
CONNECTION = "emulated-api-server-connection"
"""The name of the threads that serve."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it was read off the wire."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str | None = field(repr=False)
    impersonated: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, its content in bytes or as something to be written as JSON; `stream` is a content that goes on.

    `manner` sends it in another way than all at once: it is given the wire, the head and the body.
    """

    status: int
    content: Any = field(repr=False, default=b"")
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[Any] | None = field(repr=False, default=None)
    manner: Callable[[Wire, bytes, bytes], None] | None = None

    def head(self) -> bytes:
        """Return the status line and the headers."""
        size = ("Transfer-Encoding", "chunked")
        if self.stream is None:
            size = ("Content-Length", str(len(self.body())))
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, '')}"]
        headers = {"Content-Type": self.content_type, **self.headers, size[0]: size[1]}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def body(self) -> bytes:
        """Return the content as it goes over the wire; that of a stream is empty."""
        return encoded(self.content)


def encoded(content: object) -> bytes:
    """Write JSON as the API server does, compact and with a line end; bytes are left as they are."""
    if isinstance(content, bytes):
        return content
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Wire:
    """The server's end of one connection."""

    connection: socket.socket

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError when the client is gone."""
        self.connection.sendall(data)

    def reset(self) -> None:
        """Close the connection so that the client sees it reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 on one connection until either side has had enough."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connection: socket.socket

    def __init__(self, connection: socket.socket, peer: tuple[str, int], respond: Callable[[Call], Answer]) -> None:
        self.respond = respond
        super().__init__(connection, peer, None)  # type: ignore[arg-type]  # there is no socketserver

    def answer(self) -> None:
        """Read one request, and answer it."""
        url = urlsplit(self.path)
        call = Call(
            self.command,
            unquote(url.path),
            dict(parse_qsl(url.query)),
            self.headers.get("Authorization"),
            self.headers.get("Impersonate-User"),
            self.rfile.read(int(self.headers.get("Content-Length", "0"))),
        )
        answer = self.respond(call)
        wire, head, body = Wire(self.connection), answer.head(), answer.body()
        if answer.manner is not None:
            self.close_connection = True
            answer.manner(wire, head, body)
            return
        wire.send(head + body)
        if answer.stream is not None:
            for piece in map(encoded, answer.stream):
                wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            wire.send(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing: requests are recorded by the cluster."""


class Server:
    """Listens on a port of 127.0.0.1 and answers each call by a function, until it is stopped.

    `context` may be exchanged at any time: new connections use the new one. `None` is plain HTTP.
    While `deaf` is an event, a new connection gets no word, not even a TLS handshake, before it is set.
    """

    def __init__(self, respond: Callable[[Call], Answer], context: ssl.SSLContext | None) -> None:
        self._respond = respond
        self.context = context
        self.deaf: threading.Event | None = None
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._listening = False
        self.listen()

    def listen(self) -> None:
        """Accept connections, if it does not."""
        if self._listening:
            return
        self._listening = True
        self._listener.listen(128)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def refuse(self) -> None:
        """Refuse connections until `listen`, and close those there are."""
        self._close()
        self._listener = _bound(self.port)  # bound and not listening, it refuses, and keeps the port

    def stop(self) -> None:
        """Close every connection and return when each thread has ended."""
        self._close()
        with self._lock:
            threads = list(self._connections)
        for thread in threads:
            thread.join()

    def _close(self) -> None:
        self._listening = False
        # accept() is woken by a connection everywhere, by shutdown() on Linux alone.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            self._acceptor.join()
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Close every connection there is."""
        with self._lock:
            for connection in self._connections.values():
                _shut(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, peer = listener.accept()
            if not self._listening:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection, peer), name=CONNECTION, daemon=True)
            with self._lock:
                known = self._connections.items()
                self._connections = {each: end for each, end in known if each.is_alive()} | {thread: connection}
                thread.start()

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            with contextlib.suppress(OSError):  # the client went away, or does not trust us
                if self.deaf is not None:
                    self.deaf.wait()
                elif self.context is None:
                    _Handler(connection, peer, self._respond)
                else:
                    connection = self._secured(connection, self.context)
                    _Handler(connection, peer, self._respond)
        finally:
            _shut(connection)
            connection.close()

    def _secured(self, plain: socket.socket, context: ssl.SSLContext) -> socket.socket:
        with self._lock:  # so that nobody misses it who shuts all connections
            secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            self._connections[threading.current_thread()] = secured
        try:
            secured.do_handshake()
        except OSError:
            secured.close()
            raise
        return secured


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _shut(connection: socket.socket) -> None:
    # Not SSLSocket's own shutdown, which takes the TLS state from under a thread that is reading.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
