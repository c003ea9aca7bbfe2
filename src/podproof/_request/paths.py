"""Paths: in the one form that every router reads alike, and those of them that are open to all."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Whatever some router along the way may read as another path: empty and dot segments, backslashes, path parameters,
# control characters, and escapes that are still there after decoding.
_ODD = re.compile(r"//|/\.{1,2}(?:/|$)|[\\%;\x00-\x1f\x7f]")


def is_unambiguous(path: str, raw_path: str | None) -> bool:
    """Tell whether a decoded path is in the one form that every router reads alike.

    `raw_path` is the path as the client sent it, where the server tells: one with any escape is not normal, since
    routers differ in what they make of it.
    """
    return path.startswith("/") and (raw_path is None or "%" not in raw_path) and _ODD.search(path) is None


class ExemptPaths:
    """Exact paths and `prefix/*` ones, the latter for whole segments below the prefix."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._exact = frozenset(path for path in paths if not path.endswith("/*"))
        self._prefixes = tuple(path.removesuffix("*") for path in paths if path.endswith("/*"))

    def open(self, path: str, raw_path: str | None = None) -> bool:
        """Tell whether a path is open to all: one that is not normal is not. The arguments are those of `is_normal`."""
        return (path in self._exact or path.startswith(self._prefixes)) and is_unambiguous(path, raw_path)
