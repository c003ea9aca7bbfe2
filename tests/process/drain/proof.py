"""The long proof: each server, with the drain and without, many times in a row. See `--help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.process.drain.rollout_trial import SecondSigterm, UnderLoad, no_traffic, second_sigterm, under_load
from tests.process.drain.servers import COMMANDS

GAP = 1.0
ROW = "{:26}{:>10}{:>10}{:>10}{:>10}{:>14}{:>14}{:>12}"


async def prove(name: str, runs: int, directory: Path) -> bool:
    """Print one row of the table; return whether the drain did what it says."""
    command = COMMANDS[name]
    without = await under_load(command.plain, directory, gap=GAP, before=1, after=5)
    loads: list[UnderLoad] = []
    seconds: list[SecondSigterm] = []
    idle: list[float] = []
    for _ in range(runs):
        loads.append(await under_load(command.drained, directory, gap=GAP, before=1, after=5))
        seconds.append(await second_sigterm(command.drained, directory, requests=2, seconds=1))
        idle.append(await no_traffic(command.drained, directory, gap=GAP))
    failed = sum((load.failed for load in loads), Counter[str]())
    exits = [load.exited if load.exited is not None else float("-inf") for load in loads]
    lost = Counter(answer for second in seconds for answer in second.answers if " 200 " not in answer)
    print(
        ROW.format(
            name,
            f"{without.failed.total()}/{without.answered + without.failed.total()}",
            failed.total(),
            sum(load.answered for load in loads),
            lost.total(),
            f"{min(exits) - GAP:+.2f}..{max(exits) - GAP:.2f}",
            f"{max(second.exited for second in seconds):.2f}",
            f"{max(idle) - GAP:+.2f}",
        ),
        flush=True,
    )
    for trouble in (failed, lost):
        if trouble:
            print(f"    {dict(trouble)}")
    return (
        not failed
        and not lost
        and min(exits) > 0
        and max(exits) < GAP + 1.5
        and max(second.exited for second in seconds) < 2
        and max(idle) < GAP + 1.5
    )


def main() -> int:
    """Print the table; exit with 1 if the drain failed anywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how many times in a row")
    parser.add_argument("--only", default="", help="only the servers whose name holds this")
    options = parser.parse_args()
    print(
        f"Load of about 190 requests/s from 1 s before SIGTERM until 5 s after; gap {GAP} s; {options.runs} runs each."
    )
    print(ROW.format("", "without", "drained", "drained", "2nd TERM", "exit after", "exit after", "idle exit"))
    print(ROW.format("server", "failed", "failed", "answered", "lost", "load - gap", "2nd TERM", "- gap"))
    with tempfile.TemporaryDirectory() as directory:
        names = [name for name in COMMANDS if options.only in name]
        proved = [asyncio.run(prove(name, options.runs, Path(directory))) for name in names]
    return 0 if all(proved) else 1


if __name__ == "__main__":
    sys.exit(main())
