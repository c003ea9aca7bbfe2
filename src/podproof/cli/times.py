"""Times as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def span(seconds: float) -> str:
    """Return a length of time in its one or two largest units, such as `1 h 5 min`."""
    left = round(abs(seconds))
    for (unit, size), (finer, part) in pairwise(_UNITS):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {unit}" + (f" {rest} {finer}" if rest else "")
    return f"{left} s"


def stamp(unix: float) -> str:
    """Return a time, given in Unix seconds, in UTC."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
