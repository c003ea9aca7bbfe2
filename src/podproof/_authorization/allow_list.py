"""Allow-lists: service accounts by name, with shell globs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

from podproof.errors import NotAllowed
from podproof.identity import ServiceAccount


class AllowList:
    """Service accounts by name: "namespace/name", both parts with shell globs, neither crossing the slash."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Take at least one pattern. Raises ValueError for one that is not of the form."""
        if not patterns:
            raise ValueError("an allow-list without a pattern would allow nobody")
        self.patterns = tuple(patterns)
        self._pairs = [_compile(pattern) for pattern in patterns]

    def authorize(self, service_account: ServiceAccount) -> None:
        """Raise NotAllowed for a service account that no pattern matches."""
        for namespace, name in self._pairs:
            if namespace.match(service_account.namespace) and name.match(service_account.name):
                return
        raise NotAllowed(f"{service_account} is not among {', '.join(self.patterns)}")

    def __repr__(self) -> str:
        return f"AllowList({list(self.patterns)!r})"


def _compile(pattern: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    namespace, slash, name = pattern.partition("/")
    if not namespace or not slash or not name or "/" in name:
        raise ValueError(f'{pattern!r} is not of the form "namespace/name"')
    return re.compile(translate(namespace)), re.compile(translate(name))
