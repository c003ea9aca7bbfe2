"""A stream that is a terminal."""

from __future__ import annotations

import io


class Terminal(io.StringIO):
    """Collects what a command writes to a terminal."""

    def isatty(self) -> bool:
        """Return True, unlike a StringIO."""
        return True
