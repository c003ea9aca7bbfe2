"""Role-based access control: who may do what in the emulated cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podproof.testing.requestinfo import RequestInfo

MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """Who is asking, as the API server knows it after authentication."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the `UserInfo` object: what is empty is left out."""
        return {
            key: value
            for key, value in {
                "username": self.name,
                "uid": self.uid,
                "groups": list(self.groups),
                "extra": {key: list(values) for key, values in self.extra.items()},
            }.items()
            if value
        }


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class Grant:
    """One rule bound to one user or group, in one namespace or, when `namespace` is None, everywhere."""

    subject: str
    verbs: frozenset[str]
    resources: frozenset[str] = frozenset()
    api_groups: frozenset[str] = frozenset({"*"})
    non_resource_urls: frozenset[str] = frozenset()
    namespace: str | None = None

    def covers(self, asked: RequestInfo) -> bool:
        """Tell whether the rule allows what was asked, whoever asked it."""
        if not self.verbs & {asked.verb, "*"}:
            return False
        if not asked.resource:
            return self.namespace is None and any(
                _url_matches(url, asked.path) for url in self.non_resource_urls
            )
        wanted = {asked.full_resource, "*", f"*/{asked.subresource}"}
        return (
            self.namespace in {None, asked.namespace}
            and bool(self.api_groups & {asked.group, "*"})
            and bool(self.resources & wanted)
        )


def _url_matches(rule: str, path: str) -> bool:
    return path.startswith(rule[:-1]) if rule.endswith("*") else path == rule


_PUBLIC = frozenset({"/healthz", "/livez", "/readyz", "/version", "/version/"})
_ISSUER = frozenset({"/.well-known/openid-configuration", "/openid/v1/jwks", "/openid/v1/jwks/"})
_SELF = frozenset({"selfsubjectaccessreviews"})

# The bindings every cluster starts with, by the names of their ClusterRoles: system:public-info-viewer,
# system:service-account-issuer-discovery and system:basic-user.
DEFAULTS = (
    Grant("system:unauthenticated", frozenset({"get"}), non_resource_urls=_PUBLIC),
    Grant("system:authenticated", frozenset({"get"}), non_resource_urls=_PUBLIC),
    Grant("system:serviceaccounts", frozenset({"get"}), non_resource_urls=_ISSUER),
    Grant("system:authenticated", frozenset({"create"}), _SELF, frozenset({"authorization.k8s.io"})),
)


def allows(grants: Iterable[Grant], user: User, asked: RequestInfo) -> bool:
    """Tell whether any of the grants lets this user do what was asked."""
    subjects = {user.name, *user.groups}
    return MASTERS in subjects or any(grant.subject in subjects and grant.covers(asked) for grant in grants)
