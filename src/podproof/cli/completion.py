"""`podproof completion`: the script that completes the command in a shell."""

from __future__ import annotations

from podproof._extras import require_extra
from podproof.cli.parser import build_parser


def completion_script(shell: str) -> str:
    """Return the script for a shell.

    Raises MissingExtra if shtab is not installed.
    """
    require_extra("podproof completion", "completion")
    import shtab  # noqa: PLC0415  an extra that no other command needs

    script: str = shtab.complete(build_parser(shtab.FILE), shell)
    return script
