"""Paths that are open to all."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Whatever some router along the way may read as another path: empty and dot segments, backslashes, path parameters,
# control characters, and escapes that are still there after decoding.
_ODD = re.compile(r"//|/\.{1,2}(?:/|$)|[\\%;\x00-\x1f\x7f]")


class ExemptPaths:
    """Exact paths and `prefix/*` ones, the latter for whole segments below the prefix."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._exact = frozenset(path for path in paths if not path.endswith("/*"))
        self._prefixes = tuple(path.removesuffix("*") for path in paths if path.endswith("/*"))

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes)

    def open(self, path: str, raw_path: str | None = None) -> bool:
        """Tell whether a decoded path is open to all.

        `raw_path` is the path as the client sent it, where the server tells: one with any escape is not exempt, since
        routers differ in what they make of it.
        """
        if raw_path is not None and "%" in raw_path:
            return False
        if path not in self._exact and not path.startswith(self._prefixes):
            return False
        return _ODD.search(path) is None
