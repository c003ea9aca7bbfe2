"""What a check found: how bad it is, what was seen, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad; the number is the exit status."""

    OK = 0
    WARN = 1
    FAIL = 2

    @property
    def word(self) -> str:
        """Its name, as it is printed."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor. `mend` is a command or YAML, of one line or several, empty where all is well."""

    level: Level
    subject: str
    seen: str
    mend: str = ""


def ok(subject: str, seen: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(Level.OK, subject, seen)


def warn(subject: str, seen: str, mend: str) -> Finding:
    """Return a finding of something that works, and is not as it should be."""
    return Finding(Level.WARN, subject, seen, mend)


def fail(subject: str, seen: str, mend: str) -> Finding:
    """Return a finding of something that keeps callers from being known, or lets the wrong ones in."""
    return Finding(Level.FAIL, subject, seen, mend)
