"""Values that must not cross a fork: connections, threads, locks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ForkLocal(Generic[T]):
    """A value made when it is first asked for, and made anew in a forked child.

    A client that crossed a fork shares its sockets with the parent: each may then read the other's answers. There is no
    lock here, since a lock may be held while the process forks; two threads that ask first at the same moment may each
    make a value, and both get the same one.

    `latest` is the value that was made last, where there is one. In a child that has not yet asked for its own that is
    the parent's, good for nothing but to look at: that saves asking the system which process this is, each time.
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
        """Forget this process's value, and return it where there was one."""
        self.latest = None
        return self._values.pop(os.getpid(), None)

    def drop(self, value: T) -> None:
        """Forget this process's value if it still is this one, and not one that another thread has just renewed."""
        if self._values.get(os.getpid()) is value:
            self.pop()
