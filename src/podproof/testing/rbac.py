"""Role-based access control: who may do what in the emulated cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from podproof.testing.requestinfo import RequestInfo
    from podproof.testing.store import Store

GROUP = "rbac.authorization.k8s.io"
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
        info = {
            "username": self.name,
            "uid": self.uid,
            "groups": list(self.groups),
            "extra": {key: list(values) for key, values in self.extra.items()},
        }
        return {key: value for key, value in info.items() if value}


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))

_PUBLIC = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY = "/.well-known/openid-configuration"
_ISSUER = (_DISCOVERY, "/openid/v1/jwks", "/openid/v1/jwks/")
_SELF = {
    "verbs": ["create"],
    "apiGroups": ["authorization.k8s.io"],
    "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
}
ANONYMOUS_DISCOVERY_SINCE = (1, 36)
"""v1.36.2 shows the issuer's discovery document to callers without a credential, and its keys still not."""


def defaults(version: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Yield the roles of a new cluster, each with its name, its rule and its subjects.

    They are the part of the API server's own ClusterRoles that is about the endpoints emulated here.
    """
    public = (*_PUBLIC, _DISCOVERY) if version >= ANONYMOUS_DISCOVERY_SINCE else _PUBLIC
    yield (
        "system:public-info-viewer",
        {"verbs": ["get"], "nonResourceURLs": public},
        ("system:authenticated", "system:unauthenticated"),
    )
    yield (
        "system:service-account-issuer-discovery",
        {"verbs": ["get"], "nonResourceURLs": _ISSUER},
        ("system:serviceaccounts",),
    )
    yield "system:basic-user", _SELF, ("system:authenticated",)


def subject(name: str) -> dict[str, str]:
    """Return the subject of a binding: `namespace/name` is a service account, `system:…` a group, else a user."""
    namespace, slash, account = name.partition("/")
    if slash:
        return {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    kind = "Group" if name.startswith("system:") and not name.startswith("system:serviceaccount:") else "User"
    return {"kind": kind, "apiGroup": GROUP, "name": name}


def service_account_groups(namespace: str) -> tuple[str, ...]:
    """Return the groups of every service account of a namespace."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")


def reason(store: Store, user: User, asked: RequestInfo) -> str | None:
    """Return why this user may do what was asked, in the API server's words, or None when nothing allows it."""
    if MASTERS in user.groups:
        return ""
    for binding, role in _bindings(store, asked.namespace):
        named = next((each for each in binding.get("subjects", ()) if _is(each, user)), None)
        if named is not None and any(_covers(rule, asked) for rule in role.get("rules", ())):
            return f"RBAC: allowed by {_bound(binding)} of {_named(binding['roleRef'])} to {_named(named)}"
    return None


def _bindings(store: Store, namespace: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    bindings = store.all("clusterrolebindings")[0]
    if namespace:
        bindings += store.all("rolebindings", namespace)[0]
    for binding in bindings:
        wanted = binding["roleRef"]
        place = ("clusterroles", "") if wanted["kind"] == "ClusterRole" else ("roles", namespace)
        if (role := store.get(*place, wanted["name"])) is not None:
            yield binding, role


def _is(named: Mapping[str, str], user: User) -> bool:
    match named["kind"]:
        case "ServiceAccount":
            return user.name == f"system:serviceaccount:{named['namespace']}:{named['name']}"
        case "Group":
            return named["name"] in user.groups
        case _:
            return named["name"] == user.name


def _covers(rule: Mapping[str, Any], asked: RequestInfo) -> bool:
    if not _any(rule["verbs"], asked.verb):
        return False
    if not asked.resource:
        return any(_url_matches(url, asked.path) for url in rule.get("nonResourceURLs", ()))
    names = rule.get("resourceNames", ())
    return (
        _any(rule.get("apiGroups", ()), asked.group)
        and _any(rule.get("resources", ()), asked.full_resource, f"*/{asked.subresource}")
        and (not names or asked.name in names)
    )


def _any(allowed: Collection[str], *wanted: str) -> bool:
    return not {"*", *wanted}.isdisjoint(allowed)


def _url_matches(rule: str, path: str) -> bool:
    return path.startswith(rule[:-1]) if rule.endswith("*") else path == rule


def _bound(binding: Mapping[str, Any]) -> str:
    metadata = binding["metadata"]
    if "namespace" in metadata:
        return f'RoleBinding "{metadata["name"]}/{metadata["namespace"]}"'
    return f'ClusterRoleBinding "{metadata["name"]}"'


def _named(named: Mapping[str, str]) -> str:
    place = f"/{named['namespace']}" if "namespace" in named else ""
    return f'{named["kind"]} "{named["name"]}{place}"'
