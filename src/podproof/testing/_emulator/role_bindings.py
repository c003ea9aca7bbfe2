"""Roles and their bindings: the permissions of a user in the emulated cluster (RBAC)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podproof.testing._emulator.status_errors import StatusError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from podproof.testing._emulator.object_store import ObjectStore
    from podproof.testing._emulator.request_info import RequestInfo
    from podproof.testing._emulator.users import UserInfo

GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"


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


def default_roles(version: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
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


def allow_reason(store: ObjectStore, user: UserInfo, info: RequestInfo) -> str | None:
    """Return the reason why a request of a user is allowed, in the API server's words, or None if no rule allows it."""
    if MASTERS in user.groups:
        return ""
    for binding, role in _bindings(store, info.namespace):
        named = next((each for each in binding.get("subjects", ()) if _is_subject(each, user)), None)
        if named is not None and any(_covers(rule, info) for rule in role.get("rules", ())):
            binding_name, role_name = _describe_binding(binding), _describe(binding["roleRef"])
            return f"RBAC: allowed by {binding_name} of {role_name} to {_describe(named)}"
    return None


def forbidden(user: UserInfo, info: RequestInfo) -> StatusError:
    """Return a 403: no rule allows the request."""
    if not info.resource:
        return StatusError(403, "Forbidden", f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"', {})
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    full = f"{info.resource}.{info.group}" if info.group else info.resource
    named = f'{full} "{info.name}"' if info.name else full
    message = (
        f'{named} is forbidden: User "{user.name}" cannot {info.verb} resource "{info.full_resource}"'
        f' in API group "{info.group}" {where}'
    )
    details = {"name": info.name, "group": info.group, "kind": info.resource}
    return StatusError(403, "Forbidden", message, {key: value for key, value in details.items() if value})


def _bindings(store: ObjectStore, namespace: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    bindings = store.all("clusterrolebindings")[0]
    if namespace:
        bindings += store.all("rolebindings", namespace)[0]
    for binding in bindings:
        wanted = binding["roleRef"]
        place = ("clusterroles", "") if wanted["kind"] == "ClusterRole" else ("roles", namespace)
        if (role := store.get(*place, wanted["name"])) is not None:
            yield binding, role


def _is_subject(named: Mapping[str, str], user: UserInfo) -> bool:
    match named["kind"]:
        case "ServiceAccount":
            return user.name == f"system:serviceaccount:{named['namespace']}:{named['name']}"
        case "Group":
            return named["name"] in user.groups
        case _:
            return named["name"] == user.name


def _covers(rule: Mapping[str, Any], info: RequestInfo) -> bool:
    if not _matches(rule["verbs"], info.verb):
        return False
    if not info.resource:
        return any(_url_matches(url, info.path) for url in rule.get("nonResourceURLs", ()))
    names = rule.get("resourceNames", ())
    return (
        _matches(rule.get("apiGroups", ()), info.group)
        and _matches(rule.get("resources", ()), info.full_resource, f"*/{info.subresource}")
        and (not names or info.name in names)
    )


def _matches(allowed: Collection[str], *wanted: str) -> bool:
    return not {"*", *wanted}.isdisjoint(allowed)


def _url_matches(rule: str, path: str) -> bool:
    return path.startswith(rule[:-1]) if rule.endswith("*") else path == rule


def _describe_binding(binding: Mapping[str, Any]) -> str:
    metadata = binding["metadata"]
    if "namespace" in metadata:
        return f'RoleBinding "{metadata["name"]}/{metadata["namespace"]}"'
    return f'ClusterRoleBinding "{metadata["name"]}"'


def _describe(named: Mapping[str, str]) -> str:
    place = f"/{named['namespace']}" if "namespace" in named else ""
    return f'{named["kind"]} "{named["name"]}{place}"'
