"""Paths: the one form that every router reads alike, and the exempt ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Whatever some router along the way may read as another path: empty and dot segments, backslashes, path parameters,
# control characters, and escapes that are still there after decoding.
_AMBIGUOUS = re.compile(r"//|/\.{1,2}(?:/|$)|[\\%;\x00-\x1f\x7f]")


def is_unambiguous(path: str, raw_path: str | None) -> bool:
    """Return True if every router reads a decoded path alike.

    `raw_path` is the path as the client sent it, None if the server does not say: one with any escape is ambiguous,
    since routers differ in what they make of it.
    """
    return path.startswith("/") and (raw_path is None or "%" not in raw_path) and _AMBIGUOUS.search(path) is None


class ExemptPaths:
    """Exact paths, and `prefix/*` ones for whole segments below the prefix."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._exact = frozenset(path for path in paths if not path.endswith("/*"))
        self._prefixes = tuple(path.removesuffix("*") for path in paths if path.endswith("/*"))

    def cover(self, path: str, raw_path: str | None = None) -> bool:
        """Return True if a path needs no credential; an ambiguous one (see `is_unambiguous`) always does."""
        return (path in self._exact or path.startswith(self._prefixes)) and is_unambiguous(path, raw_path)
