"""Run all measurements, print the table, and write it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks import leave_out_extras
from benchmarks.report import Measurement, as_json, table

PARTS = (
    "lookup",
    "stampede",
    "unknown",
    "modes",
    "floods",
    "watch",
    "outage",
    "api_load",
    "exchange",
    "issued",
    "serving",
    "tools",
    "calls",
)
PACKAGES = ("podproof", "starlette", "uvicorn", "fastapi", "flask", "gunicorn", "pyjwt", "kubernetes", "urllib3")


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"), help="the file for the numbers")
    arguments = parser.parse_args()
    leave_out_extras()
    load = os.getloadavg()[0]
    rows: list[Measurement] = []
    for part in arguments.only:
        begin = time.monotonic()
        print(f"{part} ...", end=" ", file=sys.stderr, flush=True)
        rows += import_module(f"benchmarks.{part}").rows()
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    arguments.json.write_text(json.dumps(_as_json(rows, load), indent=2, ensure_ascii=False) + "\n")
    print(table(rows))


def _as_json(rows: Sequence[Measurement], load: float) -> object:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "load_before": load,
        "packages": {package: version(package) for package in PACKAGES},
        "rows": [as_json(row) for row in rows],
    }


if __name__ == "__main__":
    main()
