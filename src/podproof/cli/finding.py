"""One result of a doctor check: its severity, what was seen, and a suggested fix."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """The severity of a finding; the highest one is the exit status, for which a skipped check counts as ok."""

    SKIP = -1
    OK = 0
    WARN = 1
    FAIL = 2

    @property
    def word(self) -> str:
        """The name as it is printed."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `fix` is a command or YAML of one or more lines, empty if there is nothing to fix."""

    level: Level
    subject: str
    message: str
    fix: str = ""


def ok(subject: str, message: str) -> Finding:
    """Return a finding of something that is as it should be."""
    return Finding(Level.OK, subject, message)


def skip(subject: str, message: str, fix: str = "") -> Finding:
    """Return a finding of something that could not be examined; `fix` says how it can be."""
    return Finding(Level.SKIP, subject, message, fix)


def warn(subject: str, message: str, fix: str) -> Finding:
    """Return a finding of something that works but is not as it should be."""
    return Finding(Level.WARN, subject, message, fix)


def fail(subject: str, message: str, fix: str) -> Finding:
    """Return a finding of something because of which callers are rejected, or the wrong callers accepted."""
    return Finding(Level.FAIL, subject, message, fix)
