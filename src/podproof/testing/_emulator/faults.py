"""Faults of the API server and of the connections to it, for tests to switch on."""

from __future__ import annotations

import dataclasses
import math
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, get_args

from podproof.testing._emulator import status_errors
from podproof.testing._emulator.http_server import ServerResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from podproof.testing._emulator.http_server import ClientConnection

HTML = b"<html><head><title>503 Service Temporarily Unavailable</title></head><body>nginx</body></html>\n"
HUGE = 10_000_000

ConnectionFault = Literal["refuse", "silent", "new-certificate", "foreign-certificate", "wrong-name"]
"""Faults of the whole server: it refuses connections, accepts them and sends nothing, or serves another certificate: a
new one of the same authority, one of another authority, or one for another name."""

ResponseFault = Literal[
    "hang", "close", "reset", "cut", "drip-headers", "drip-body", "html", "content-type", "truncated", "huge"
]
"""Faults of single responses: never sent; the connection closed instead; reset, or closed, half-way through the body;
sent a byte at a time; an HTML page with status 503; JSON as text/plain; half of the JSON; 10 MB of JSON."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of responses: its kind, and the paths that it is for (a shell glob).

    An integer is an HTTP status with its `Status` object. `interval` is the seconds between two bytes of a drip,
    `retry_after` those in the header of that name. `over` is set when the fault is switched off.
    """

    kind: ResponseFault | int
    path: str = "*"
    retry_after: int | None = None
    interval: float = 0.05
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, int) and self.kind not in get_args(ResponseFault):
            known = ", ".join([*get_args(ConnectionFault), *get_args(ResponseFault)])
            raise ValueError(f"invalid fault {self.kind!r}: expected an HTTP status or one of {known}")

    def apply(self, response: Callable[[], ServerResponse]) -> ServerResponse:
        """Return the response that is sent instead. The right one is made only if part of it is sent."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        match self.kind:
            case int(code):
                return ServerResponse(code, status_errors.failing(code).json(), headers=headers)
            case "html":
                return ServerResponse(503, HTML, "text/html", headers)
            case "huge":
                return ServerResponse(200, {"kind": "Status", "message": "x" * HUGE})
        whole = response()
        match self.kind:
            case "content-type":
                return dataclasses.replace(whole, content_type="text/plain")
            case "truncated":
                return dataclasses.replace(whole, content=_half(whole.body()), stream=None)
            case _:
                return dataclasses.replace(whole, send=self._send)

    def _send(self, connection: ClientConnection, head: bytes, body: bytes) -> None:
        match self.kind:
            case "hang":
                self.over.wait()
            case "reset":
                connection.send(head + _half(body))
                connection.reset()
            case "cut":
                connection.send(head + _half(body))
            case "drip-headers":
                self._drip(connection, head)
                connection.send(body)
            case "drip-body":
                connection.send(head)
                self._drip(connection, body)

    def _drip(self, connection: ClientConnection, data: bytes) -> None:
        for byte in data:
            connection.send(bytes([byte]))
            self.over.wait(self.interval)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


class Faults:
    """The faults of responses that are switched on. The last one that matches a path applies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[Fault, float] = {}

    def add(self, fault: Fault, times: int | None = None) -> None:
        """Switch a fault on, for a number of responses or until `clear`."""
        with self._lock:
            self._left[fault] = math.inf if times is None else times

    def take(self, path: str) -> Fault | None:
        """Return the fault of the next response to a path, if any, and count it down."""
        with self._lock:
            for fault in reversed(self._left):
                if self._left[fault] and fnmatchcase(path, fault.path):
                    self._left[fault] -= 1
                    return fault
        return None

    def clear(self) -> None:
        """Switch all faults off, and release the connections that they hold."""
        with self._lock:
            for fault in self._left:
                fault.over.set()
            self._left.clear()
