"""What it takes to import podproof, each time in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.repeats import interleaved
from benchmarks.report import Amount, Row

ROUNDS = 15
GOAL = 1.5

BESIDE = {
    "podproof": "starlette.middleware.authentication",
    "podproof.asgi": "starlette.middleware.authentication",
    "podproof.wsgi": "werkzeug.middleware.proxy_fix",
}

_IMPORT = """
import json, sys, time
from benchmarks.extras import leave_out
leave_out()
before, begin = set(sys.modules), time.process_time()
import {module}
seconds = time.process_time() - begin
print(json.dumps({{"seconds": seconds, "modules": sorted(set(sys.modules) - before)}}))
"""


def rows() -> Iterator[Row]:
    """Measure imports."""
    for ours, theirs in BESIDE.items():
        repeats = interleaved({name: partial(_seconds, name) for name in (ours, theirs)}, ROUNDS)
        heavy = {"kubernetes", "requests"} & set(_import(ours)["modules"])
        ratio = repeats.ratio(ours, theirs)
        yield Row(
            f"import {ours}; loads {' and '.join(sorted(heavy)) or 'neither kubernetes nor requests'}",
            Amount(repeats.median(ours), "s"),
            f"import {theirs}",
            Amount(repeats.median(theirs), "s"),
            ratio,
            f"≤ {GOAL}x, neither",
            ratio <= GOAL and not heavy,
        )


def _seconds(module: str) -> float:
    seconds: float = _import(module)["seconds"]
    return seconds


def _import(module: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _IMPORT.format(module=module)]
    answer: dict[str, Any] = json.loads(subprocess.check_output(command))  # noqa: S603  the command above
    return answer
