"""Servers in their own processes, and the processor time that each request costs them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import LoadRequest, LoopbackLoad

# The ID of another process's CPU clock (MAKE_PROCESS_CPUCLOCK with CPUCLOCK_SCHED in Linux' posix-timers): nanoseconds,
# ended threads included, where /proc/PID/stat counts in hundredths of a second.
_CPUCLOCK_SCHED = 2

UVICORN = ("uvicorn", "--factory", "--no-proxy-headers", "--no-access-log", "--log-level", "warning")
KEPT = ("--timeout-keep-alive", "600")
H11 = (*UVICORN, *KEPT, "--loop", "asyncio", "--http", "h11")
HTTPTOOLS = (*UVICORN, *KEPT, "--loop", "uvloop", "--http", "httptools")
GUNICORN = ("gunicorn", "--log-level", "warning", "--keep-alive", "600", "--workers", "1")
SYNC = (*GUNICORN, "--worker-class", "sync")
GTHREAD = (*GUNICORN, "--worker-class", "gthread", "--threads", "4")


class ServerUnderLoad:
    """A running server, and the load on it."""

    def __init__(self, process: subprocess.Popen[bytes], load: LoopbackLoad) -> None:
        self._process = process
        self._load = load

    def measure(self, count: int) -> float:
        """Send `count` requests on each connection, and return the server's processor seconds per request."""
        self._load.send(1)  # the review that is due once a minute
        processes = [self._process.pid, *_children(self._process.pid)]
        begin = sum(map(cpu_seconds, processes))
        sent = self._load.send(count)
        return (sum(map(cpu_seconds, processes)) - begin) / sent


@contextmanager
def served(
    app: str, server: Sequence[str], environ: Mapping[str, str], request: LoadRequest, connections: int
) -> Iterator[ServerUnderLoad]:
    """Serve an app of `benchmarks.apps`, named as `module:function`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if server[0] == "uvicorn":
        where = [f"benchmarks.apps.{app}", "--port", str(port)]
    else:
        where = [f"benchmarks.apps.{app}()", "--bind", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", *server, *where]
    process = subprocess.Popen(command, env={**os.environ, **environ})  # noqa: S603  the commands above
    try:
        with LoopbackLoad(port, request, connections) as load:
            load.wait(30)
            load.send(20)
            yield ServerUnderLoad(process, load)
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds that a process of this user has taken, ended threads included."""
    return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED) / 1e9


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
