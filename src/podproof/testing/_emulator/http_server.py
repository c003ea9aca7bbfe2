"""The emulated API server's HTTP: a listening socket, a thread for each connection, TLS and keep-alive."""

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
"""The name of the threads that serve connections."""


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """One request as it was received."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str | None = field(repr=False)
    impersonated: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """One response: its content is bytes or a JSON value, `stream` yields the events of a watch.

    `send` replaces the way that it is sent: it is called with the connection, the head and the body.
    """

    status: int
    content: Any = field(repr=False, default=b"")
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[Any] | None = field(repr=False, default=None)
    send: Callable[[ClientConnection, bytes, bytes], None] | None = None

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
        """Return the content in bytes; that of a stream is empty."""
        return encode_json(self.content)


def encode_json(content: object) -> bytes:
    """Return a value as the API server's JSON, compact and with a line end. Bytes are returned as they are."""
    if isinstance(content, bytes):
        return content
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """The server's end of one connection."""

    connection: socket.socket

    def send(self, data: bytes) -> None:
        """Send all of the data. Raises OSError if the client has closed the connection."""
        self.connection.sendall(data)

    def reset(self) -> None:
        """Reset the connection (TCP RST)."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves HTTP/1.1 on one connection until either side closes it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connection: socket.socket

    def __init__(
        self, connection: socket.socket, peer: tuple[str, int], respond: Callable[[ServerRequest], ServerResponse]
    ) -> None:
        self.respond = respond
        super().__init__(connection, peer, None)  # type: ignore[arg-type]  # there is no socketserver

    def handle_request(self) -> None:
        """Read one request and respond to it."""
        url = urlsplit(self.path)
        request = ServerRequest(
            self.command,
            unquote(url.path),
            dict(parse_qsl(url.query)),
            self.headers.get("Authorization"),
            self.headers.get("Impersonate-User"),
            self.rfile.read(int(self.headers.get("Content-Length", "0"))),
        )
        response = self.respond(request)
        client, head, body = ClientConnection(self.connection), response.head(), response.body()
        if response.send is not None:
            self.close_connection = True
            response.send(client, head, body)
            return
        client.send(head + body)
        if response.stream is not None:
            for piece in map(encode_json, response.stream):
                client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Log nothing: the cluster records requests."""


class LoopbackServer:
    """Listens on a port of 127.0.0.1 and responds to requests by a function, until it is stopped.

    `context` may be replaced at any time, for new connections. `None` is plain HTTP.
    While `silence` is an event, new connections get not even a TLS handshake before it is set.
    """

    def __init__(self, respond: Callable[[ServerRequest], ServerResponse], context: ssl.SSLContext | None) -> None:
        self._respond = respond
        self.context = context
        self.silence: threading.Event | None = None
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._listener = _bind(0)
        self.port: int = self._listener.getsockname()[1]
        self._listening = False
        self.listen()

    def listen(self) -> None:
        """Accept connections, if the server does not yet."""
        if self._listening:
            return
        self._listening = True
        self._listener.listen(128)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def refuse(self) -> None:
        """Refuse connections until `listen`, and close the open ones."""
        self._close()
        self._listener = _bind(self.port)  # a bound socket that does not listen refuses connections and keeps the port

    def stop(self) -> None:
        """Close every connection and wait until each thread has ended."""
        self._close()
        with self._lock:
            threads = list(self._connections)
        for thread in threads:
            thread.join()

    def _close(self) -> None:
        self._listening = False
        # A connection wakes accept() on every system, shutdown() on Linux alone.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            self._acceptor.join()
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Close every open connection."""
        with self._lock:
            for connection in self._connections.values():
                _shutdown(connection)

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
            with contextlib.suppress(OSError):  # the client closed the connection, or rejects the certificate
                if self.silence is not None:
                    self.silence.wait()
                elif self.context is None:
                    _Handler(connection, peer, self._respond)
                else:
                    connection = self._wrap_tls(connection, self.context)
                    _Handler(connection, peer, self._respond)
        finally:
            _shutdown(connection)
            connection.close()

    def _wrap_tls(self, plain: socket.socket, context: ssl.SSLContext) -> socket.socket:
        with self._lock:  # so that drop() closes this socket too
            secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            self._connections[threading.current_thread()] = secured
        try:
            secured.do_handshake()
        except OSError:
            secured.close()
            raise
        return secured


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _shutdown(connection: socket.socket) -> None:
    # Not SSLSocket's own shutdown, which frees the TLS state while another thread reads.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
