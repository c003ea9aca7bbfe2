"""The emulated API server's HTTP: a socket, a thread a connection, TLS, keep-alive, and nobody left at the end."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it was read off the wire."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str | None = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: a whole body, or the pieces of one that goes on."""

    status: int
    body: bytes = field(repr=False, default=b"")
    stream: Iterator[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def json_answer(code: int, content: Mapping[str, Any], **headers: str) -> Answer:
    """Return an answer of JSON, written as the API server writes it."""
    body = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    return Answer(code, body, headers={"Content-Type": "application/json", **headers})


class _Handler(http.server.BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 on one connection until either side has had enough."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def __init__(
        self, connection: socket.socket, peer: tuple[str, int], respond: Callable[[Call], Answer]
    ) -> None:
        self.respond = respond
        super().__init__(connection, peer, None)  # type: ignore[arg-type]  # no socketserver behind it

    def handle_call(self) -> None:
        """Read one request, and answer it."""
        url = urlsplit(self.path)
        call = Call(
            self.command,
            unquote(url.path),
            dict(parse_qsl(url.query)),
            self.headers.get("Authorization"),
            self.rfile.read(int(self.headers.get("Content-Length", "0"))),
        )
        answer = self.respond(call)
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.stream is None:
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in answer.stream:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_call  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing: requests are recorded by the cluster."""


class Server:
    """Listens on a port of 127.0.0.1 and answers each call by a function, until it is stopped.

    `context` may be exchanged at any time: new connections use the new one. `None` is plain HTTP.
    """

    def __init__(self, respond: Callable[[Call], Answer], context: ssl.SSLContext | None) -> None:
        self._respond = respond
        self.context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._acceptor = threading.Thread(target=self._accept, name="emulated-api-server")
        self._acceptor.start()

    def stop(self) -> None:
        """Close every connection and return when each thread has ended."""
        self._stopping.set()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            self._acceptor.join()
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Close every connection there is, and wait for their threads."""
        with self._lock:
            open_now = dict(self._connections)
        for connection in open_now.values():
            _shut(connection)
        for thread in open_now:
            thread.join()

    def _accept(self) -> None:
        while True:
            connection, peer = self._listener.accept()
            if self._stopping.is_set():
                connection.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(connection, peer), name="emulated-api-connection"
            )
            with self._lock:
                self._connections[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            if self.context is not None:
                connection = self.context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                with self._lock:
                    self._connections[threading.current_thread()] = connection
                connection.do_handshake()
            _Handler(connection, peer, self._respond)
        except OSError:
            pass  # the client went away, or would not trust us
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]
            _shut(connection)
            connection.close()


def _shut(connection: socket.socket) -> None:
    # Not SSLSocket's own shutdown, which takes the TLS state from under a thread that is reading.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
