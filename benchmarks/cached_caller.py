"""A cached caller in a process of its own: it sends requests over HTTP, one after the other, and times each of them."""

from __future__ import annotations

import time

from benchmarks.helper_process import commands, respond
from benchmarks.load import LoadRequest, LoopbackLoad


def main(port: str, token: str) -> None:
    """Send requests to a port of this machine. A command is their number, and the pause between two in seconds."""
    respond()
    with LoopbackLoad(int(port), LoadRequest(headers={"Authorization": f"Bearer {token}"}), 1) as load:
        for number, pause in commands():
            latencies = []
            for _ in range(number):
                begin = time.perf_counter()
                load.send(1)
                latencies.append(time.perf_counter() - begin)
                time.sleep(pause)
            respond(latencies)
