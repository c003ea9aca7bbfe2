"""The `podproof` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from podproof import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="podproof", description="Tells a web app which pod is calling it.")
    parser.add_argument("--version", action="version", version=f"podproof {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="show who is known and who is refused, on an emulated cluster",
        description="Starts an emulated API server, a Bob who asks it, and those who call him from loopback addresses; "
        "prints who called, from where, with what, and what came of it. Needs no cluster. The exit status is 0 if "
        "every call came out as it must.",
    )
    demo.set_defaults(run=_demo)
    return parser


def _demo(_: argparse.Namespace) -> int:
    from podproof.cli.demo import demo  # noqa: PLC0415  what one command needs, the others do not load

    return demo(sys.stdout)
