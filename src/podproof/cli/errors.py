"""The error that ends a command."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot continue: says what is wrong and what to do; never holds a token."""
