"""How long a WSGI request's body may be read: until its caller's token expires."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from podproof.errors import IdentityEnded

PIECE = 1024
"""Bytes of a request's body that are read from the server at a time."""

ENDS_SOON = 60.0
SMALL_PIECE = 64
"""Bytes that are read at a time where the token has less than `ENDS_SOON` seconds left: a slow upload ends with it."""


class LimitedInput(SimpleNamespace):  # whose constructor is C: each request makes one
    """A request's body as it is read, until a moment in monotonic seconds; it never reads more than it is asked for.

    A server's `read` returns when all is there, so it is called for pieces, and the time is looked at between them.
    """

    given: Any
    ends_at: float

    def __getattr__(self, name: str) -> Any:
        """Return what some servers have besides, but no other way to read: Werkzeug prefers `readinto`."""
        if name.startswith("read"):
            raise AttributeError(name)
        return getattr(self.given, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def read(self, size: int | None = -1) -> bytes:
        return b"".join(self._pieces(self.given.read, size))

    def readline(self, size: int | None = -1) -> bytes:
        return b"".join(self._pieces(self.given.readline, size, b"\n"))

    def readlines(self, _hint: int | None = None, /) -> list[bytes]:
        """Return all lines: a hint need not be heeded (PEP 3333)."""
        return [*self]

    def _pieces(self, read: Callable[[int], bytes], size: int | None, end: bytes | None = None) -> Iterator[bytes]:
        """Yield pieces of so many bytes, of all for a negative size or None, until one is short, or ends with `end`."""
        left = math.inf if size is None or size < 0 else size
        while left > 0:
            ends_soon = self.ends_at - time.monotonic() < ENDS_SOON
            wanted = int(min(left, SMALL_PIECE if ends_soon else PIECE))
            piece = read(wanted)
            if time.monotonic() >= self.ends_at:
                raise IdentityEnded("the caller's token has expired during the request's body")
            yield piece
            if len(piece) < wanted or (end is not None and piece.endswith(end)):
                return
            left -= len(piece)
