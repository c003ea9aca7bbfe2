"""`podproof completion`: what a shell needs to complete the command."""

from __future__ import annotations

from podproof.cli.errors import CommandError
from podproof.cli.parser import parser


def completion(shell: str) -> str:
    """Return the script for bash, zsh or tcsh.

    Raises CommandError where shtab is not installed.
    """
    try:
        import shtab  # noqa: PLC0415  an extra, that nothing else needs
    except ImportError:
        raise CommandError("this needs shtab: pip install 'podproof[completion]'") from None
    script: str = shtab.complete(parser(shtab.FILE), shell)
    return script
