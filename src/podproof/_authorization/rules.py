"""Rules: who may call which path by which method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from podproof._authorization.allow_list import AllowList
from podproof._authorization.path_pattern import is_path_pattern
from podproof._authorization.policy import Decision
from podproof.errors import NotAllowed
from podproof.identity import PodIdentity

# A method is a token (RFC 9110 section 9.1); those in use are letters and dashes.
_METHOD = re.compile(r"[A-Za-z][A-Za-z-]*")


class Rule:
    """Lets service accounts call a path by some methods.

    `path` is an exact path, or `prefix/*` for what is below it; `/*` is every path. `methods` are all of them when not
    given; GET includes HEAD. `allow` is "namespace/name" with shell globs; an empty list lets nobody in.

    Raises ValueError, and TypeError where a list is a text.
    """

    def __init__(self, path: str, *, methods: Sequence[str] | None = None, allow: Sequence[str]) -> None:
        if path != "/*" and not is_path_pattern(path):
            raise ValueError(f'path {path!r} is not a plain path, such as "/invoices" or "/invoices/*"')
        for name, value in (("methods", methods), ("allow", allow)):
            if isinstance(value, str):
                raise TypeError(f"{name} is to be a list, and is the text {value!r}")
        if methods is not None and not (methods and all(_METHOD.fullmatch(method) for method in methods)):
            raise ValueError(f'methods {methods!r} are not HTTP methods, such as ["GET", "POST"]')
        self.path = path
        self.methods = None if methods is None else tuple(method.upper() for method in methods)
        self.allow = tuple(allow)
        self._prefix = path.removesuffix("*") if path.endswith("/*") else None
        self._methods = frozenset(self.methods or ())
        if "GET" in self._methods:
            self._methods |= {"HEAD"}  # RFC 9110 section 9.3.2: the same, without the content
        self._allowed = AllowList(self.allow) if allow else None

    def covers(self, method: str, path: str) -> bool:
        """Tell whether this rule is about such a request."""
        if self._methods and method not in self._methods:
            return False
        return path == self.path if self._prefix is None else path.startswith(self._prefix)

    def check(self, identity: PodIdentity) -> None:
        """Raise NotAllowed for who is not among those allowed."""
        if self._allowed is None:
            raise NotAllowed(f"the rule for {self} allows nobody")
        try:
            self._allowed.authorize(identity.service_account)
        except NotAllowed as refusal:
            raise NotAllowed(f"by the rule for {self}, {refusal.reason}") from None

    def __str__(self) -> str:
        return " ".join((",".join(self.methods or ("*",)), self.path))

    def __repr__(self) -> str:
        return f"Rule({self.path!r}, methods={self.methods!r}, allow={self.allow!r})"


class Rules:
    """A table of rules: the first that is about a request decides; a request that no rule is about is refused."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision] | None:
        """Decide at once. Raises NotAllowed."""
        for rule in self._rules:
            if rule.covers(method, path):
                rule.check(identity)
                return None
        raise NotAllowed("no rule is about this path and method")
