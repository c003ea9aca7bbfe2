"""An app in the modes keys and watch, in a process of its own, and what its view of the pods takes."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import AUDIENCE
from benchmarks.floods import ServedApp
from benchmarks.helper_process import commands, respond
from benchmarks.pod_server import ISSUER, event_about
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pod_watch import PodWatch
from podproof._request.setup import build_mode
from podproof.options import Options

PATIENCE = 60.0
"""Seconds."""


class WatchingApp:
    """An authenticator, and the changes that the watch reports to it."""

    def __init__(self, kubeconfig: str) -> None:
        client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": kubeconfig}))
        options = Options(audience=(AUDIENCE,), verify="keys", pods="lookup", issuers=(ISSUER,), cache_ttl=3600)
        mode = build_mode(options, client, [])
        self._watch = PodWatch(
            client,
            fallback=mode.pods,
            listeners=[self._see],
            uniform=lambda least, _: least,  # without the random pause before a second list
        )
        self.authenticator = Authenticator(options, mode.verifier, self._watch)
        self._seen: dict[int, float] = {}
        self._used: list[float] = []

    def list(self) -> Mapping[str, float]:
        """Wait for the first list: return its seconds, also of processor time, and the bytes that it takes."""
        before = memory("VmRSS")
        view = self._watch.start()
        taken = _time(lambda: view.age() is not None)
        return {**taken, "bytes": memory("VmRSS") - before, "peak": memory("VmHWM") - before}

    def list_again(self) -> Mapping[str, float]:
        """Wait for the second list; the bytes at the peak are beyond those that the process had before."""
        view = self._watch.start()
        known, before = view._pods, memory("VmRSS")  # noqa: SLF001  nothing public changes with a list that is equal
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        taken = _time(lambda: view._pods is not known)  # noqa: SLF001
        return {**taken, "peak": memory("VmHWM") - before}

    def changes(self, first: int, end: int) -> Mapping[str, Any]:
        """Return when each of these changes came to the view, and the processor time of one."""
        _time(lambda: end - 1 in self._seen)
        at = [self._seen[change] for change in range(first, end)]
        return {"at": at, "used": median(later - before for before, later in pairwise(self._used[first:end]))}

    def _see(self, uid: str) -> None:
        self._used.append(time.thread_time())
        self._seen[event_about(uid)] = time.monotonic()
        self.authenticator.discard_pod(uid)


def memory(name: str) -> int:
    """Return a size from this process's status, in bytes."""
    gc.collect()
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _time(reached: Callable[[], bool]) -> Mapping[str, float]:
    begin, used = time.monotonic(), time.process_time()
    while not reached():
        if time.monotonic() - begin > PATIENCE:
            raise TimeoutError("the view has not changed in time")
        time.sleep(0.005)
    return {"seconds": time.monotonic() - begin, "used": time.process_time() - used}


async def _serve(app: WatchingApp) -> None:
    served = ServedApp(app.authenticator)
    respond(await served.start())
    coming = commands()
    while (command := await asyncio.to_thread(next, coming, None)) is not None:
        name, *arguments = command
        respond(await asyncio.to_thread(getattr(app, name), *arguments))
    await served.stop()


def main(kubeconfig: str) -> None:
    """Serve on a port of this machine. A command is a method's name and its arguments."""
    asyncio.run(_serve(WatchingApp(kubeconfig)))
