"""Counts podproof's own function calls: a cost that is the same on every machine."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import podproof

PACKAGE = str(Path(podproof.__file__).parent)


def count_calls(work: Callable[[], object]) -> Counter[str]:
    """Return how often each of podproof's own functions is called, or resumed, in this thread, as "file.py:name"."""
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            calls[f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls
