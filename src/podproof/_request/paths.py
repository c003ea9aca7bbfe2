"""Paths: the one form that every router reads alike, and patterns of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Whatever some router along the way may read as another path: empty and dot segments, backslashes, path parameters,
# fragments, whatever is not printable ASCII (Bottle drops bytes that are no UTF-8), and escapes that are still there
# after decoding.
_AMBIGUOUS = re.compile(r"//|/\.{1,2}(?:/|$)|[\\%;#?]|[^!-~]")


def is_unambiguous(path: str, raw_path: str | None) -> bool:
    """Return True if every router reads a decoded path alike.

    `raw_path` is the path as the client sent it, None if the server does not say: one with any escape is ambiguous,
    since routers differ in what they make of it.
    """
    return path.startswith("/") and (raw_path is None or "%" not in raw_path) and _AMBIGUOUS.search(path) is None


def path_below(path: str, root: str) -> str | None:
    """Return the path below the root that an app is mounted at, None if routers read it in different ways.

    The root is at the path's start, as whole segments, or nowhere in it, where a server passes on a root that a proxy
    has taken off. Elsewhere Litestar splits the path at the root, and Quart and Django 5 take it off a longer segment.
    Of a root with a slash at its end, Django 6.1 leaves the slash on the path, and others do not.
    """
    if root == "/":
        return path[1:] if path.startswith("//") else path
    if not root or root not in path:
        return path
    below = path.removeprefix(root)
    ends = {""} if root.endswith("/") else {"", "/"}
    return below if len(below) < len(path) and below[:1] in ends else None


def with_other_slash(path: str) -> str:
    """Return a path without its trailing slash if it has one, else with one; "/" as it is."""
    return path.removesuffix("/") or "/" if path.endswith("/") else f"{path}/"


class PathPatterns:
    """Exact paths, and `prefix/*` ones for whole segments below the prefix."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._exact = frozenset(path for path in paths if not path.endswith("/*"))
        self._prefixes = tuple(path.removesuffix("*") for path in paths if path.endswith("/*"))

    def covers(self, path: str, raw_path: str | None = None, other_paths: Sequence[str] = ()) -> bool:
        """Return True if each router takes a path for one of these, as no ambiguous one (see `is_unambiguous`) is.

        So must be what some frameworks may take it for besides; of that, an exact path is about both forms.
        """
        return (
            self._match(path)
            and is_unambiguous(path, raw_path)
            and all(self._match(other) or with_other_slash(other) in self._exact for other in other_paths)
        )

    def may_cover(self, path: str, raw_path: str | None = None, other_paths: Sequence[str] = ()) -> bool:
        """Return True unless each router takes a path for another one than these: an ambiguous one may be any."""
        return not is_unambiguous(path, raw_path) or any(
            self._match(one) or self._match(with_other_slash(one)) for one in (path, *other_paths)
        )

    def _match(self, path: str) -> bool:
        return path in self._exact or path.startswith(self._prefixes)
