"""What a file or a directory says, read again when it changes: mounted ConfigMaps and Secrets do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from podproof._telemetry import metrics
from podproof.errors import ConfigurationError

log = logging.getLogger("podproof")

CHECK_INTERVAL = 1.0
"""Seconds between two looks for changes."""

T = TypeVar("T")

_Version = tuple[object, ...] | None


def _start_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="podproof-reload", daemon=True).start()


def file_version(path: Path) -> _Version:
    """Return what changes when a file is written or, as a ConfigMap's, its link replaced. None if the file is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Reloaded(Generic[T]):
    """What `read` returns for a path, called again when `version` of the path changes; `what` names it in the log.

    What has become invalid or unreadable leaves the previous value in force; that is logged once a change. A call costs
    one look a second at most: the path is read by a thread that `start` starts.

    Raises the ConfigurationError of `read` if it is invalid from the start.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], T],
        *,
        what: str,
        version: Callable[[Path], _Version] = file_version,
        monotonic: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        self._path = path
        self._read = read
        self._what = what
        self._read_version = version
        self._monotonic = monotonic
        self._start = start
        self._next_look = monotonic() + CHECK_INTERVAL
        self._version = version(path)
        self._value = read(path)

    def get(self) -> T:
        """Return the value that was read last."""
        now = self._monotonic()
        if now >= self._next_look:
            self._next_look = now + CHECK_INTERVAL
            version = self._read_version(self._path)
            if version != self._version:
                self._version = version
                self._start(lambda: self._reload(version))
        return self._value

    def _reload(self, version: _Version) -> None:
        try:
            value = self._read(self._path)
        except ConfigurationError as error:
            metrics.reload_failures.labels(self._what).inc()
            log.error("%s not reloaded, the previous ones stay in force: %s", self._what, error)
            return
        if self._version == version:  # else it has changed again, and the reload for that may be done already
            self._value = value
            log.info("%s reloaded from %s", self._what, self._path)
