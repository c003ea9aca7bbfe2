"""What ends a command that cannot do its work."""

from __future__ import annotations


class CommandError(Exception):
    """Says what is wrong and what to do; never holds a token."""
