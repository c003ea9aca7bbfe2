"""Rules: who may call which path by which method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from podproof._authorization.allow_list import AllowList
from podproof._authorization.path_pattern import is_path_pattern
from podproof._authorization.policy import Decision
from podproof.errors import NotAllowed
from podproof.identity import PodIdentity

# A method is a token (RFC 9110 section 9.1); those in use are letters and dashes.
_METHOD = re.compile(r"[A-Za-z][A-Za-z-]*")


@dataclass(frozen=True, init=False)
class Rule:
    """Lets service accounts call a path by some methods.

    `path` is an exact path, with or without a trailing slash, or `prefix/*` for all paths below it; `/*` is every path.
    `methods` defaults to all; GET includes HEAD. `allow` is "namespace/name" with shell globs; an empty list denies
    everyone.

    Raises ValueError for an invalid value, and TypeError for a string in place of a list.
    """

    path: str
    methods: tuple[str, ...] | None
    allow: tuple[str, ...]

    def __init__(self, path: str, *, methods: Sequence[str] | None = None, allow: Sequence[str]) -> None:
        if path != "/*" and not is_path_pattern(path):
            raise ValueError(f'invalid path {path!r}: expected a plain path, such as "/invoices" or "/invoices/*"')
        for name, value in (("methods", methods), ("allow", allow)):
            if isinstance(value, str):
                raise TypeError(f"invalid {name} {value!r}: expected a list")
        if methods is not None and not (methods and all(_METHOD.fullmatch(method) for method in methods)):
            raise ValueError(f'invalid methods {methods!r}: expected HTTP methods, such as ["GET", "POST"]')
        if allow:
            AllowList(allow)  # for its errors
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "methods", None if methods is None else tuple(method.upper() for method in methods))
        object.__setattr__(self, "allow", tuple(allow))

    def __str__(self) -> str:
        return " ".join((",".join(self.methods or ("*",)), self.path))

    def __repr__(self) -> str:
        return f"Rule({self.path!r}, methods={self.methods!r}, allow={self.allow!r})"


class Rules:
    """A list of rules: the first that matches a request decides; a request that none matches is denied."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [_CompiledRule(rule) for rule in rules]

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision] | None:
        """Decide at once. Raises NotAllowed."""
        for rule in self._rules:
            if rule.matches(method, path):
                rule.authorize(identity)
                return None
        raise NotAllowed("no rule matches this path and method")


class _CompiledRule:
    """A rule, made ready for one comparison a request."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._prefix = rule.path.removesuffix("*") if rule.path.endswith("/*") else None
        # Some frameworks take a path with and without its trailing slash for one, so an exact rule does.
        bare = rule.path.rstrip("/")
        self._exact = frozenset({bare, f"{bare}/"}) if bare else frozenset({"/"})
        self._methods = frozenset(rule.methods or ())
        if "GET" in self._methods:
            self._methods |= {"HEAD"}  # RFC 9110 section 9.3.2: the same, without the content
        self._allow = AllowList(rule.allow) if rule.allow else None

    def matches(self, method: str, path: str) -> bool:
        """Return True if the rule is for this method and path."""
        if self._methods and method not in self._methods:
            return False
        return path in self._exact if self._prefix is None else path.startswith(self._prefix)

    def authorize(self, identity: PodIdentity) -> None:
        """Raise NotAllowed for a caller that the rule does not allow."""
        if self._allow is None:
            raise NotAllowed(f"rule {self._rule}: allows no one")
        try:
            self._allow.authorize(identity.service_account)
        except NotAllowed as denied:
            raise NotAllowed(f"rule {self._rule}: {denied.reason}") from None
