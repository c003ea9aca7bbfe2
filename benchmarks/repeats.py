"""Competitors measured in turns, so that the machine's other load affects all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Repeats:
    """The seconds (or other amounts) that each competitor took, by name, in the order of the rounds."""

    taken: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Return the median of what one competitor took."""
        return median(self.taken[name])

    def ratio(self, name: str, beside: str) -> float:
        """Return the median of the ratios within each round."""
        return median(ours / theirs for ours, theirs in zip(self.taken[name], self.taken[beside], strict=True))


def interleaved(competitors: Mapping[str, Callable[[], float]], rounds: int) -> Repeats:
    """Run each competitor once a round; each round begins with another one. A competitor returns what it took."""
    names = list(competitors)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(competitors[name]())
    return Repeats(taken)


def concatenate(parts: Sequence[Repeats]) -> Repeats:
    """Return the rounds of several measurements of the same competitors as those of one."""
    return Repeats({name: [one for part in parts for one in part.taken[name]] for name in parts[0].taken})


def timed(work: Callable[[], object], count: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds per item of `work`, which does `count` of them. The garbage collector is off meanwhile."""
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        work()
        return (clock() - begin) / count
    finally:
        gc.enable()
