"""A proxy as a process: started, waited for, and stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess

ADDRESS, BEFORE = "127.0.0.100", "127.0.0.101"
"""Where a proxy calls the app from, and itself where it is in front of itself."""


@contextmanager
def running_proxy(command: list[str], port: int, folder: Path) -> Iterator[ServerProcess]:
    """Run a proxy that listens on a port, from when it answers to its SIGTERM."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    proxy = ServerProcess(port, folder / "no socket", log, process.pid)
    try:
        end = time.monotonic() + TIMEOUT_SECONDS
        while not proxy.is_up():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield proxy
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(TIMEOUT_SECONDS)
        finally:
            process.kill()
