"""Values that must not cross a fork: connections, threads, locks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ForkLocal(Generic[T]):
    """A value that is made at its first use, and made anew in a forked child.

    A client that crossed a fork shares its sockets with the parent: each may then read the other's responses. There is
    no lock here, since a lock may be held while the process forks; two threads that come first at the same moment may
    each make a value, and both get the same one.

    `latest` is the value that was made last, None before. In a child that has not made its own it is the parent's,
    which may be read, never locked or called: this saves a system call (`os.getpid`) per request.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}
        self.latest: T | None = None

    def get(self) -> T:
        """Return this process's value."""
        pid = os.getpid()
        value = self._values.get(pid)
        if value is None:
            value = self.latest = self._values.setdefault(pid, self._make())
        return value

    def pop(self) -> T | None:
        """Remove this process's value, and return it if there was one."""
        self.latest = None
        return self._values.pop(os.getpid(), None)

    def discard(self, value: T) -> None:
        """Remove this process's value if it is still this one, not one that another thread has made meanwhile."""
        if self._values.get(os.getpid()) is value:
            self.pop()
