"""100,000 pods in the view of one process: start-up, memory, how late a change is seen, and requests meanwhile.

The API server, the app and a cached caller have a process each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from statistics import median, quantiles
from typing import Any

from benchmarks.helper_process import HelperProcess
from benchmarks.repeats import Repeats, interleaved
from benchmarks.report import Amount, Measurement

PODS = 100_000
RATE = 1000
"""Changes per second."""

ROUNDS = 5
SECONDS = 2.0
"""Of changes, in each round."""

REQUESTS, PAUSE = 100, 0.002
"""Of the cached caller, again and again meanwhile, and the seconds between two of them."""

LAG_GOAL = 0.25
LATENCY_GOAL = 1.5
MEMORY_GOAL = 700


def rows() -> Iterator[Measurement]:
    """Measure with an API server that streams lists, and with one that has them in pages."""
    streamed, paged = _measure("1.36", ROUNDS, streamed=True), _measure("1.26", 3, streamed=False)
    seconds, by_pages = streamed.first["seconds"], paged.first["seconds"]
    yield Measurement(
        f"{PODS:,} pods of {streamed.json_size / 1024:.1f} KB: until a process knows them, by a streamed list",
        Amount(seconds, "s"),
        "by pages of 500",
        Amount(by_pages, "s"),
        seconds / by_pages,
        why=f"{streamed.first['used']:.3g} s and {paged.first['used']:.3g} s of processor time",
    )
    yield _memory("memory per pod, of a streamed list", streamed.first["bytes"])
    yield _memory("memory per pod, of pages", paged.first["bytes"])
    yield _memory("memory per pod that a second list takes meanwhile", streamed.second["peak"])
    lag = quantiles(streamed.lags, n=100)[98]
    yield Measurement(
        f"from a change to its place in the view, 99th percentile at {RATE:,} changes per second",
        Amount(lag, "s"),
        "the median",
        Amount(median(streamed.lags), "s"),
        goal=f"≤ {LAG_GOAL * 1000:.0f} ms",
        met=lag <= LAG_GOAL,
    )
    yield Measurement("processor time for one such change", Amount(streamed.used, "s"))
    yield _latency(f"a cached caller's latency, beside {RATE:,} changes per second", "changes", streamed)
    for how, one in (("streamed", streamed), ("by pages", paged)):
        beside = "another process reads it"
        yield _latency(f"a cached caller's latency, beside a second list, {how}", "list", one, "elsewhere", beside)


def _memory(what: str, size: float) -> Measurement:
    each = size / PODS
    return Measurement(what, Amount(each, "B"), goal=f"≤ {MEMORY_GOAL} B", met=each <= MEMORY_GOAL)


def _latency(what: str, name: str, measured: _Measured, other: str = "quiet", beside: str = "without") -> Measurement:
    ratio, tail = measured.median.ratio(name, other), measured.tail.ratio(name, other)
    return Measurement(
        what,
        Amount(measured.median.median(name), "s"),
        beside,
        Amount(measured.median.median(other), "s"),
        ratio,
        f"≤ {LATENCY_GOAL}x",
        ratio <= LATENCY_GOAL,
        f"the 99th percentile is {tail:.2f}x",
    )


class _Measured:
    """What was measured with an API server of one version, and what measures it.

    `median` and `tail` have the median and the 99th percentile of the cached caller's latency.
    """

    def __init__(
        self, api: HelperProcess, app: HelperProcess, reader: HelperProcess, threads: ThreadPoolExecutor
    ) -> None:
        self._api, self._app, self._reader, self._threads = api, app, reader, threads
        self.json_size: int = api.ready["bytes"]
        self.first: Mapping[str, float] = app.ask(["list"])
        self.second: Mapping[str, float] = {}
        self.lags: list[float] = []
        self.used = 0.0

    def run(self, caller: HelperProcess, rounds: int, *, streamed: bool) -> None:
        """Measure in turns."""
        tails: dict[str, list[float]] = {}
        kinds: dict[str, Callable[[], object]] = {
            "quiet": partial(time.sleep, SECONDS),
            "changes": self._change,
            "list": self._list_again,
            "elsewhere": partial(self._reader.ask, streamed),
        }

        def measure(name: str) -> float:
            latencies: list[float] = []
            working = self._threads.submit(kinds[name])
            while not latencies or not working.done():
                latencies += caller.ask([REQUESTS, PAUSE])
            working.result()
            tails.setdefault(name, []).append(quantiles(latencies, n=100)[98])
            return median(latencies)

        self.median = interleaved({name: partial(measure, name) for name in kinds}, rounds)
        self.tail = Repeats(tails)

    def _change(self) -> None:
        first, end, begin = self._api.ask([SECONDS, RATE])
        seen: Any = self._app.ask(["changes", first, end])
        self.used = seen["used"]
        self.lags += [at - begin - number / RATE for number, at in enumerate(seen["at"])]

    def _list_again(self) -> None:
        listing: Future[Mapping[str, float]] = self._threads.submit(self._app.ask, ["list_again"])
        time.sleep(0.2)  # the app notes what it has
        self._api.ask("expire")
        self.second = listing.result()


def _measure(version: str, rounds: int, *, streamed: bool) -> _Measured:
    with ExitStack() as stack:
        api = stack.enter_context(HelperProcess("pod_server", str(PODS), version))
        app = stack.enter_context(HelperProcess("watching_app", api.ready["kubeconfig"]))
        reader = stack.enter_context(HelperProcess("list_reader", api.ready["kubeconfig"], str(PODS)))
        measured = _Measured(api, app, reader, stack.enter_context(ThreadPoolExecutor()))
        caller = stack.enter_context(HelperProcess("cached_caller", str(app.ready), api.ready["tokens"][0]))
        measured.run(caller, rounds, streamed=streamed)
    return measured
