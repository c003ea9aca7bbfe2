"""What can go wrong between a caller and the API server, switched on by a test."""

from __future__ import annotations

import dataclasses
import math
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, get_args

from podproof.testing import status
from podproof.testing.server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from podproof.testing.server import Wire

HTML = b"<html><head><title>503 Service Temporarily Unavailable</title></head><body>nginx</body></html>\n"
HUGE = 10_000_000

ConnectionFault = Literal["refuse", "deaf", "new-certificate", "foreign-certificate", "wrong-name"]
"""What befalls the whole server: it refuses connections, accepts them and says nothing, or serves with another
certificate: a new one of the same authority, one of another authority, or one for another name."""

AnswerFault = Literal[
    "hang", "close", "reset", "cut", "drip-headers", "drip-body", "html", "content-type", "truncated", "huge"
]
"""What befalls single answers: never given; the connection closed instead; reset, or closed, half-way through the
body; sent a byte at a time; an HTML page with 503; JSON by another name; half of the JSON; 10 MB of JSON."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in some answers: which, for which paths (a shell glob), and how slow or for how long.

    An integer is an HTTP status with its `Status` object. `interval` are the seconds between two bytes of a drip,
    `retry_after` those in the header of that name. `over` is set when the fault is.
    """

    kind: AnswerFault | int
    path: str = "*"
    retry_after: int | None = None
    interval: float = 0.05
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, int) and self.kind not in get_args(AnswerFault):
            known = ", ".join([*get_args(ConnectionFault), *get_args(AnswerFault)])
            raise ValueError(f"{self.kind!r} is none of an HTTP status, {known}")

    def spoil(self, answer: Callable[[], Answer]) -> Answer:
        """Return what is sent instead of an answer, which is not made when nothing of it is wanted."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        match self.kind:
            case int(code):
                return Answer(code, status.failing(code).json(), headers=headers)
            case "html":
                return Answer(503, HTML, "text/html", headers)
            case "huge":
                return Answer(200, {"kind": "Status", "message": "x" * HUGE})
        whole = answer()
        match self.kind:
            case "content-type":
                return dataclasses.replace(whole, content_type="text/plain")
            case "truncated":
                return dataclasses.replace(whole, content=_half(whole.body()), stream=None)
            case _:
                return dataclasses.replace(whole, manner=self._send)

    def _send(self, wire: Wire, head: bytes, body: bytes) -> None:
        match self.kind:
            case "hang":
                self.over.wait()
            case "reset":
                wire.send(head + _half(body))
                wire.reset()
            case "cut":
                wire.send(head + _half(body))
            case "drip-headers":
                self._drip(wire, head)
                wire.send(body)
            case "drip-body":
                wire.send(head)
                self._drip(wire, body)

    def _drip(self, wire: Wire, data: bytes) -> None:
        for byte in data:
            wire.send(bytes([byte]))
            self.over.wait(self.interval)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


class Faults:
    """The faults that are switched on; the last one that fits a path counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[Fault, float] = {}

    def add(self, fault: Fault, times: int | None = None) -> None:
        """Switch a fault on, for so many answers or until the end."""
        with self._lock:
            self._left[fault] = math.inf if times is None else times

    def take(self, path: str) -> Fault | None:
        """Return the fault that befalls the answer about to be given, if any."""
        with self._lock:
            for fault in reversed(self._left):
                if self._left[fault] and fnmatchcase(path, fault.path):
                    self._left[fault] -= 1
                    return fault
        return None

    def clear(self) -> None:
        """Switch all faults off, and let go whoever they hold."""
        with self._lock:
            for fault in self._left:
                fault.over.set()
            self._left.clear()
