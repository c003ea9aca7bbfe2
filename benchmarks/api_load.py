"""What an app's processes ask of the API server, in each combination of `verify` and `pods`, as a table for the docs.

`python -m benchmarks.api_load` prints it. It is computed from the options' defaults; a test compares it with what
authenticators do on simulated time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from statistics import mean
from typing import NamedTuple

from benchmarks.report import Amount, Measurement
from podproof._authentication.key_set import REFRESH_INTERVAL
from podproof._authentication.pod_watch import WATCH_SECONDS
from podproof.options import Options

CACHE_TTL = Options(audience=("bob",)).cache_ttl
BOOKMARK = 60.0
"""Seconds between two bookmarks of a watch (kube-apiserver's watch cache)."""

DAY = 86400.0
CHANGES = 8
"""Events about one pod: created, scheduled, two of its start, ready, not ready, finished, deleted. Each lives a day."""

BUDGETS = (50, 500)
"""Calls and events per second."""

MODES = (("review", "lookup"), ("review", "watch"), ("keys", "lookup"), ("keys", "watch"))


class Load(NamedTuple):
    """What the API server has to do per second, by kind: events are those of watches that it sends."""

    reviews: float = 0
    reads: float = 0
    key_sets: float = 0
    watches: float = 0
    events: float = 0

    @property
    def calls(self) -> float:
        """Without the events."""
        return sum(self) - self.events


@dataclass(frozen=True, slots=True)
class Fleet:
    """Pods that call an app, and the processes of this app. Each watches all of these pods, or `watched` pods.

    Each caller calls each process at least once in `cache_ttl`: more calls than those do not ask for more.
    """

    callers: int
    processes: int
    watched: int | None = None

    def load(self, verify: str, pods: str) -> Load:
        """Return what all processes together ask of the API server."""
        uncached = self.callers * self.processes / CACHE_TTL
        watching = self.processes if pods == "watch" else 0
        return Load(
            reviews=uncached if verify == "review" else 0,
            reads=uncached if pods == "lookup" else 0,
            key_sets=self.processes / REFRESH_INTERVAL if verify == "keys" else 0,
            watches=watching / mean(WATCH_SECONDS),
            events=watching * (self.pods_watched * CHANGES / DAY + 1 / BOOKMARK),
        )

    @property
    def pods_watched(self) -> int:
        """How many pods each process watches."""
        return self.callers + self.processes if self.watched is None else self.watched

    def __str__(self) -> str:
        return f"{self.callers:,} x {self.processes:,}"


FLEETS = (
    Fleet(10, 2),
    Fleet(100, 10),
    Fleet(200, 12),
    Fleet(1000, 100),
    Fleet(10_000, 1000),
    Fleet(10_000, 1000, watched=100_000),
    Fleet(20, 1000, watched=100_000),
)


def point(budget: float, verify: str, pods: str) -> Fleet:
    """Return the first fleet, of ten callers a process, whose calls and events are more than a budget per second."""
    fleets = (Fleet(10 * processes, processes) for processes in count(1))
    return next(fleet for fleet in fleets if sum(fleet.load(verify, pods)) > budget)


def rows() -> Iterator[Measurement]:
    """Compare the mode of the fewest calls, which has events, with that of the most."""
    for fleet in FLEETS:
        ours, theirs = (sum(fleet.load(*mode)) for mode in (MODES[-1], MODES[0]))
        yield Measurement(
            f"API calls and events per second, {fleet}, {fleet.pods_watched:,} pods: keys and watch",
            Amount(_rounded(ours)),
            "review and lookup",
            Amount(_rounded(theirs)),
            ours / theirs,
            why="computed",
        )


def markdown() -> str:
    """Return the tables of docs/choosing-a-mode.md."""
    return "\n".join([*_rows(_loads()), "", *_rows(_points()), ""])


def _loads() -> Iterator[tuple[str, ...]]:
    yield ("callers x processes", "pods watched", *(f"`{verify}`, `{pods}`" for verify, pods in MODES))
    for fleet in FLEETS:
        yield (str(fleet), f"{fleet.pods_watched:,}", *(_text(fleet.load(*mode)) for mode in MODES))


def _points() -> Iterator[tuple[str, ...]]:
    yield ("passed at", *(f"`{verify}`, `{pods}`" for verify, pods in MODES))
    for budget in BUDGETS:
        yield (f"{budget} a second", *(str(point(budget, *mode)) for mode in MODES))


def _rounded(number: float) -> float:
    return round(number) if number >= 10 else float(f"{number:.2g}")


def _text(load: Load) -> str:
    calls, events = (f"{_rounded(number):,g}" for number in (load.calls, load.events))
    return f"{calls} + {events}" if load.events else calls


def _rows(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    for number, cells in enumerate(rows):
        yield "| " + " | ".join(cells) + " |"
        if number == 0:
            yield "|" + "---|" * len(cells)


if __name__ == "__main__":
    print(markdown())
