"""Path patterns: an exact path, or `prefix/*` for all paths below it."""

from __future__ import annotations

import re

# Segments of characters that every router reads in one way (RFC 3986 section 3.3 without escapes, parameters and
# commas), none of them "." or "..".
_PLAIN = re.compile(r"(?:/|(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()+=:@-]+)+(?:/|/\*)?)")


def is_path_pattern(pattern: str) -> bool:
    """Return True if this is an exact path or `prefix/*` without anything that routers may read in two ways."""
    return _PLAIN.fullmatch(pattern) is not None
