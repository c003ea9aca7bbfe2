"""Other processes of the benchmarks, which are told what to do by lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Self, TextIO, cast

from benchmarks import leave_out_extras


class HelperProcess:
    """Runs `main` of a module with these arguments. It begins with `respond`, and goes on with one for each command."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.helper_process", module, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self.ready = self._read()

    def ask(self, command: object = None) -> Any:
        """Send a command, and return the response to it."""
        hold = cast("TextIO", self._process.stdin)
        hold.write(json.dumps(command) + "\n")
        hold.flush()
        return self._read()

    def _read(self) -> Any:
        return json.loads(cast("TextIO", self._process.stdout).readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its stdin, which ends it


def commands() -> Iterator[Any]:
    """Yield the commands to this process."""
    return map(json.loads, sys.stdin)


def respond(value: object = None) -> None:
    """Return a value to the process that has sent a command."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    leave_out_extras()
    import_module(f"benchmarks.{sys.argv[1]}").main(*sys.argv[2:])
