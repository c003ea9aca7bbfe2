"""`podproof completion`: the script that completes the command in a shell."""

from __future__ import annotations

from podproof.cli.errors import CommandError
from podproof.cli.parser import build_parser


def completion_script(shell: str) -> str:
    """Return the script for a shell.

    Raises CommandError if shtab is not installed.
    """
    try:
        import shtab  # noqa: PLC0415  an extra that no other command needs
    except ImportError:
        raise CommandError("shtab is not installed: pip install 'podproof[completion]'") from None
    script: str = shtab.complete(build_parser(shtab.FILE), shell)
    return script
