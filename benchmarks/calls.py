"""Server CPU per gRPC call of a cached caller, beside the same server without an interceptor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TextIO, cast

import grpc

from benchmarks.clusters import emulated_cluster
from benchmarks.repeats import Repeats, concatenate, interleaved
from benchmarks.report import Amount, Measurement
from benchmarks.servers import cpu_seconds

METHOD = "/bob.Bob/Hello"
PROCESSES, ROUNDS, CALLS = 5, 12, 200


def rows() -> Iterator[Measurement]:
    """Measure unary calls, one after the other."""
    with emulated_cluster(1) as cluster:
        for flavour, what in (("threads", "grpc.server"), ("aio", "grpc.aio.server")):
            repeats = concatenate([_measure(flavour, cluster.kubeconfig, cluster.tokens[0]) for _ in range(PROCESSES)])
            ratio = repeats.ratio("podproof", "bare")
            yield Measurement(
                f"server CPU per unary call of a cached caller: {what}",
                Amount(repeats.median("podproof"), "s"),
                "the same server without an interceptor",
                Amount(repeats.median("bare"), "s"),
                ratio,
                "≤ 1.10x",
                met=ratio <= 1.10,
                why="the bare server does nothing but respond",
            )


def _measure(flavour: str, kubeconfig: str, token: str) -> Repeats:
    with ExitStack() as servers:
        running = {
            name: servers.enter_context(_served(flavour, name, kubeconfig, token)) for name in ("bare", "podproof")
        }
        return interleaved({name: partial(server.measure, CALLS) for name, server in running.items()}, ROUNDS)


class CalledServer:
    """A running server, and a client that calls it."""

    def __init__(self, pid: int, channel: grpc.Channel, token: str) -> None:
        self._pid = pid
        self._call = channel.unary_unary(METHOD)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def measure(self, count: int) -> float:
        """Call it so many times, and return the server's processor seconds per call."""
        self._call(b"", metadata=self._metadata, timeout=30, wait_for_ready=True)  # the review that may be due
        begin = cpu_seconds(self._pid)
        for _ in range(count):
            self._call(b"", metadata=self._metadata)
        return (cpu_seconds(self._pid) - begin) / count


@contextmanager
def _served(flavour: str, name: str, kubeconfig: str, token: str) -> Iterator[CalledServer]:
    command = [sys.executable, "-m", "benchmarks.apps.with_grpc", flavour, name]
    environ = {**os.environ, "KUBECONFIG": kubeconfig}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own
        try:
            port = cast("TextIO", process.stdout).readline().strip()
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                server = CalledServer(process.pid, channel, token)
                server.measure(50)
                yield server
        finally:
            process.terminate()
