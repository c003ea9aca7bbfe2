"""The drain's measurements: each server, with the drain and without, many times in a row. See `--help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.process.drain.server_commands import COMMANDS
from tests.process.drain.sigterm_runs import (
    LoadOutcome,
    SecondSigtermOutcome,
    second_sigterm,
    sigterm_under_load,
    sigterm_without_traffic,
)

IDLE_TIMEOUT = 1.0
ROW = "{:26}{:>10}{:>10}{:>10}{:>10}{:>14}{:>14}{:>12}"


async def measure(name: str, runs: int, directory: Path) -> bool:
    """Print one row of the table; return True if the drain kept its promises."""
    command = COMMANDS[name]
    without = await sigterm_under_load(command.plain, directory, idle_timeout=IDLE_TIMEOUT, before=1, after=5)
    loads: list[LoadOutcome] = []
    seconds: list[SecondSigtermOutcome] = []
    idle: list[float] = []
    for _ in range(runs):
        loads.append(await sigterm_under_load(command.drained, directory, idle_timeout=IDLE_TIMEOUT, before=1, after=5))
        seconds.append(await second_sigterm(command, directory, requests=2))
        idle.append(await sigterm_without_traffic(command.drained, directory, idle_timeout=IDLE_TIMEOUT))
    failed = sum((load.failed for load in loads), Counter[str]())
    exits = [load.exited if load.exited is not None else float("-inf") for load in loads]
    lost = Counter(response for second in seconds for response in second.responses if " 200 " not in response)
    print(
        ROW.format(
            name,
            f"{without.failed.total()}/{without.succeeded + without.failed.total()}",
            failed.total(),
            sum(load.succeeded for load in loads),
            lost.total(),
            f"{min(exits) - IDLE_TIMEOUT:+.2f}..{max(exits) - IDLE_TIMEOUT:.2f}",
            f"{max(second.exited for second in seconds):.2f}",
            f"{max(idle) - IDLE_TIMEOUT:+.2f}",
        ),
        flush=True,
    )
    for errors in (failed, lost):
        if errors:
            print(f"    {dict(errors)}")
    return (
        not failed
        and not lost
        and min(exits) > IDLE_TIMEOUT
        and max(exits) < IDLE_TIMEOUT + 1.5
        and max(second.exited for second in seconds) < 2
        and max(idle) < IDLE_TIMEOUT + 1.5
    )


def main() -> int:
    """Print the table; return 1 if a request failed or a server exited too late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how many times in a row")
    parser.add_argument("--only", default="", help="only the servers whose name contains this")
    options = parser.parse_args()
    print(
        f"Load of about 190 requests/s from 1 s before SIGTERM until 5 s after; idle timeout {IDLE_TIMEOUT} s; "
        f"{options.runs} runs each."
    )
    print(ROW.format("", "without", "drained", "drained", "2nd TERM", "exit after", "exit after", "idle exit"))
    print(ROW.format("server", "failed", "failed", "succeeded", "lost", "load - idle", "2nd TERM", "- idle"))
    with tempfile.TemporaryDirectory() as directory:
        names = [name for name in COMMANDS if options.only in name]
        passed = [asyncio.run(measure(name, options.runs, Path(directory))) for name in names]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
