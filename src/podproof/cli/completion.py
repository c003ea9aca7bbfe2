"""`podproof completion`: what a shell needs to complete the command."""

from __future__ import annotations

from podproof._extras import require_extra
from podproof.cli.parser import parser


def completion(shell: str) -> str:
    """Return the script for bash, zsh or tcsh.

    Raises MissingExtra where shtab is not installed.
    """
    require_extra("podproof completion", "completion")
    import shtab  # noqa: PLC0415  an extra, that nothing else needs

    script: str = shtab.complete(parser(shtab.FILE), shell)
    return script
