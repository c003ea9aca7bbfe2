"""Durations and points in time as text."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def format_duration(seconds: float) -> str:
    """Return a duration in its one or two largest units, such as `1 h 5 min`."""
    left = round(abs(seconds))
    for (unit, size), (smaller_unit, smaller_size) in pairwise(_UNITS):
        if left >= size:
            rest = left % size // smaller_size
            return f"{left // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{left} s"


def format_time(unix: float) -> str:
    """Return a point in time, given in Unix seconds, as UTC text."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
