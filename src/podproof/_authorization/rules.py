"""Rules: who may call which path by which method, by service account, and by what its pod and its namespace are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from podproof._authorization.allow_list import AllowList
from podproof._authorization.owner_pattern import OwnerPattern
from podproof._authorization.path_pattern import is_path_pattern
from podproof._authorization.policy import Decision, Labels, Namespaces
from podproof.errors import ConfigurationError, NotAllowed
from podproof.identity import PodIdentity, frozen_dict

# A method is a token (RFC 9110 section 9.1); those in use are letters and dashes.
_METHOD = re.compile(r"[A-Za-z][A-Za-z-]*")

# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_LABEL_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?{_LABEL_PART}")
_LABEL_VALUE = re.compile(rf"(?:{_LABEL_PART})?")


@dataclass(frozen=True, init=False)
class Rule:
    """Lets service accounts call a path by some methods.

    `path` is an exact path, with or without a trailing slash, or `prefix/*` for all paths below it; `/*` is every path.
    `methods` defaults to all; GET includes HEAD. `allow` is "namespace/name" with shell globs; an empty list denies
    everyone. The caller's pod has to have all of the `labels`, and this `owner`: "StatefulSet/db", "Deployment/web-*".
    Whoever may create pods in a namespace chooses both, so `allow` should name the namespaces. The pod's namespace has
    to have all of the `namespace_labels`; this app needs the permission to get namespaces.

    Raises ValueError for an invalid value, and TypeError for a string in place of a list, or what is no mapping.
    """

    path: str
    methods: tuple[str, ...] | None
    allow: tuple[str, ...]
    labels: Mapping[str, str] = field(hash=False)
    owner: str | None
    namespace_labels: Mapping[str, str] = field(hash=False)

    def __init__(
        self,
        path: str,
        *,
        methods: Sequence[str] | None = None,
        allow: Sequence[str],
        labels: Mapping[str, str] | None = None,
        owner: str | None = None,
        namespace_labels: Mapping[str, str] | None = None,
    ) -> None:
        if path != "/*" and not is_path_pattern(path):
            raise ValueError(f'invalid path {path!r}: expected a plain path, such as "/invoices" or "/invoices/*"')
        for name, value in (("methods", methods), ("allow", allow)):
            if isinstance(value, str):
                raise TypeError(f"invalid {name} {value!r}: expected a list")
        if methods is not None and not (methods and all(_METHOD.fullmatch(method) for method in methods)):
            raise ValueError(f'invalid methods {methods!r}: expected HTTP methods, such as ["GET", "POST"]')
        if allow:
            AllowList(allow)  # for its errors
        if owner is not None:
            OwnerPattern(owner)  # for its errors
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "labels", _check_labels("labels", labels))
        object.__setattr__(self, "owner", owner)
        object.__setattr__(self, "namespace_labels", _check_labels("namespace_labels", namespace_labels))
        object.__setattr__(self, "methods", None if methods is None else tuple(method.upper() for method in methods))
        object.__setattr__(self, "allow", tuple(allow))

    def __str__(self) -> str:
        return " ".join((",".join(self.methods or ("*",)), self.path))

    def __repr__(self) -> str:
        more = {
            "labels": dict(self.labels),
            "owner": self.owner,
            "namespace_labels": dict(self.namespace_labels),
        }
        shown = "".join(f", {name}={value!r}" for name, value in more.items() if value)
        return f"Rule({self.path!r}, methods={self.methods!r}, allow={self.allow!r}{shown})"


def _check_labels(name: str, labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return labels that cannot be changed. Raises TypeError and ValueError."""
    if labels is not None and not isinstance(labels, Mapping):
        raise TypeError(f"invalid {name} {labels!r:.200}: expected a mapping")
    for key, value in (labels or {}).items():
        texts = isinstance(key, str) and isinstance(value, str)
        if not texts or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ValueError(
                f'invalid {name} {key!r:.200}: {value!r:.200}: expected a label, such as "team": "payments"'
            )
    return frozen_dict(labels or {})


class Rules:
    """A list of rules: the first that matches a request decides; a request that none matches is denied.

    `namespaces` has the labels of namespaces. Raises ConfigurationError if a rule needs them and there is none.
    """

    def __init__(self, rules: Iterable[Rule], namespaces: Namespaces | None = None) -> None:
        self._rules = [_CompiledRule(rule, namespaces) for rule in rules]

    def check(
        self, identity: PodIdentity, method: str, path: str, deadline: float = math.inf
    ) -> Future[Decision] | None:
        """Decide at once, or return the future of the decision where a namespace has to be read.

        `deadline` is in monotonic seconds. Raises NotAllowed, Overloaded, Unavailable.
        """
        for rule in self._rules:
            if rule.matches(method, path):
                return rule.authorize(identity, deadline)
        raise NotAllowed("no rule matches this path and method")


class _CompiledRule:
    """A rule, made ready for one comparison a request."""

    def __init__(self, rule: Rule, namespaces: Namespaces | None) -> None:
        if rule.namespace_labels and namespaces is None:
            raise ConfigurationError(f"rule {rule}: namespace_labels are not known of these callers")
        self._rule = rule
        self._namespaces = namespaces if rule.namespace_labels else None
        self._prefix = rule.path.removesuffix("*") if rule.path.endswith("/*") else None
        # Some frameworks take a path with and without its trailing slash for one, so an exact rule does.
        bare = rule.path.rstrip("/")
        self._exact = frozenset({bare, f"{bare}/"}) if bare else frozenset({"/"})
        self._methods = frozenset(rule.methods or ())
        if "GET" in self._methods:
            self._methods |= {"HEAD"}  # RFC 9110 section 9.3.2: the same, without the content
        self._allow = AllowList(rule.allow) if rule.allow else None
        self._labels = rule.labels.items()
        self._owner = None if rule.owner is None else OwnerPattern(rule.owner)

    def matches(self, method: str, path: str) -> bool:
        """Return True if the rule is for this method and path."""
        if self._methods and method not in self._methods:
            return False
        return path in self._exact if self._prefix is None else path.startswith(self._prefix)

    def authorize(self, identity: PodIdentity, deadline: float) -> Future[Decision] | None:
        """Raise NotAllowed for a caller that the rule does not allow; its namespace is asked for last."""
        if self._allow is None:
            raise NotAllowed(f"rule {self._rule}: allows no one")
        try:
            self._allow.authorize(identity.service_account)
        except NotAllowed as denied:
            raise NotAllowed(f"rule {self._rule}: {denied.reason}") from None
        pod = identity.pod
        for label, value in self._labels:
            if pod.labels.get(label) != value:
                raise NotAllowed(f"rule {self._rule}: pod {pod} does not have the label {label}={value}")
        if self._owner is not None and not self._owner.matches(pod):
            raise NotAllowed(f"rule {self._rule}: pod {pod} does not belong to {self._rule.owner}")
        if self._namespaces is None:
            return None
        return self._namespaces.check(identity, partial(self._check_namespace, pod.namespace), deadline)

    def _check_namespace(self, namespace: str, labels: Labels) -> None:
        for label, value in self._rule.namespace_labels.items():
            if labels.get(label) != value:
                raise NotAllowed(f"rule {self._rule}: namespace {namespace} does not have the label {label}={value}")
