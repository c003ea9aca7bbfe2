"""Allow-lists: service accounts by name, with shell globs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase, translate
from string import ascii_lowercase, digits

from podproof.errors import NotAllowed
from podproof.identity import ServiceAccount

# Limits of Kubernetes names: a namespace is an RFC 1123 label, a service account's name a DNS subdomain
# (k8s.io/apimachinery/pkg/util/validation, k8s.io/apimachinery/pkg/api/validation NameIsDNSLabel, NameIsDNSSubdomain).
MAX_LABEL = 63
MAX_SUBDOMAIN = 253

_PART = re.compile(r"\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)  # as fnmatch.translate splits a pattern


class AllowList:
    """Service accounts by name: "namespace/name", both parts with shell globs that do not cross the slash.

    `patterns` is at least one. Raises ValueError for one without the slash, or that no Kubernetes name can match.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        if not patterns:
            raise ValueError("an allow-list needs at least one pattern")
        self.patterns = tuple(patterns)
        self._compiled = [_compile(pattern) for pattern in patterns]

    def matches(self, service_account: ServiceAccount) -> bool:
        """Return True for a service account that a pattern matches."""
        for namespace, name in self._compiled:
            if namespace.match(service_account.namespace) and name.match(service_account.name):
                return True
        return False

    def authorize(self, service_account: ServiceAccount) -> None:
        """Raise NotAllowed for a service account that no pattern matches."""
        if not self.matches(service_account):
            raise NotAllowed(f"{service_account} is not among {', '.join(self.patterns)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllowList) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"AllowList({list(self.patterns)!r})"


def _compile(pattern: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    namespace, slash, name = pattern.partition("/")
    if not namespace or not slash or not name or "/" in name:
        raise ValueError(f'invalid pattern {pattern!r:.80}: expected the form "namespace/name"')
    if not _can_match(namespace, MAX_LABEL, separator=""):
        raise ValueError(
            f"invalid pattern {pattern!r:.80}: no namespace can match {namespace!r:.80}, "
            "expected lower-case letters, digits and dashes"
        )
    if not _can_match(name, MAX_SUBDOMAIN, separator="."):
        raise ValueError(
            f"invalid pattern {pattern!r:.80}: no service account can match {name!r:.80}, "
            "expected lower-case letters, digits, dashes and dots"
        )
    return re.compile(translate(namespace)), re.compile(translate(name))


def _can_match(glob: str, longest: int, *, separator: str) -> bool:
    """Return True if a glob matches some name of at most `longest` characters.

    A name is labels of lower-case letters, digits and inner dashes, with `separator` between them. The glob is read
    part by part, keeping all states that a reader of such names may be in.
    """
    alphabet = f"{ascii_lowercase}{digits}-{separator}"
    parts: list[str] = _PART.findall(glob)
    if sum(part != "*" for part in parts) > longest:
        return False
    states = {"start"}
    for part in parts:
        if part == "*":
            # From every state some characters lead to every other one, a label's start only by way of a separator.
            states |= {"inside", "dash", *(["start"] if separator else [])} if states else set()
        else:
            chars = [char for char in alphabet if fnmatchcase(char, part)]
            states = {_next_state(state, char) for state in states for char in chars} - {""}
    return "inside" in states


def _next_state(state: str, char: str) -> str:
    """Return where a name is after one more character: at a label's start, inside it, after a dash; "" for nowhere."""
    if char == "-":
        return "" if state == "start" else "dash"
    if char == ".":
        return "start" if state == "inside" else ""
    return "inside"
