"""Path patterns: an exact path, or `prefix/*` for what is below it."""

from __future__ import annotations

import re

# An exact path or a "prefix/*" one that is in this form already.
_PLAIN = re.compile(r"(?:/|(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()+=:@-]+)+(?:/|/\*)?)")


def is_path_pattern(pattern: str) -> bool:
    """Tell whether an exact path or `prefix/*` holds nothing that a router could read in two ways."""
    return _PLAIN.fullmatch(pattern) is not None
