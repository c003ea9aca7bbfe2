"""The permissions that podproof needs on the API server."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple


class Permission(NamedTuple):
    """A verb on a resource of an API group, in the whole cluster or one namespace, or on a path of the API server."""

    verb: str
    group: str
    resource: str
    namespace: str = ""

    @property
    def attributes(self) -> dict[str, dict[str, str]]:
        """What an access review has about it: `resourceAttributes` or `nonResourceAttributes`."""
        if self.resource.startswith("/"):
            return {"nonResourceAttributes": {"verb": self.verb, "path": self.resource}}
        return {"resourceAttributes": self._asdict()}

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "") + where


CREATE_TOKENREVIEWS = Permission("create", "authentication.k8s.io", "tokenreviews")
GET_PODS = Permission("get", "", "pods")
LIST_PODS = Permission("list", "", "pods")
WATCH_PODS = Permission("watch", "", "pods")
GET_NAMESPACES = Permission("get", "", "namespaces")
CREATE_ACCESS_REVIEWS = Permission("create", "authorization.k8s.io", "subjectaccessreviews")
CREATE_SELF_REVIEWS = Permission("create", "authorization.k8s.io", "selfsubjectaccessreviews")
GET_SIGNING_KEYS = Permission("get", "", "/openid/v1/jwks")
GET_DISCOVERY = Permission("get", "", "/.well-known/openid-configuration")
"""Paths and no resources: the ClusterRole `system:service-account-issuer-discovery` has both."""


def needed_permissions(
    *,
    reviews: bool,
    keys: bool,
    watch: bool,
    namespaces: Sequence[str],
    rbac: bool = False,
    namespace_labels: bool = False,
) -> list[Permission]:
    """Return what an app needs.

    That is for tokens that are reviewed or verified by the API server's keys, for pods that are looked up or watched
    (in these namespaces, none for all), for a policy that asks for access reviews, and for rules by namespace labels.
    """
    pods = [one._replace(namespace=name) for name in namespaces or ("",) for one in (LIST_PODS, WATCH_PODS)]
    return [
        *([CREATE_TOKENREVIEWS] if reviews else []),
        *([GET_SIGNING_KEYS] if keys else []),
        *(pods if watch else [GET_PODS]),
        *([CREATE_ACCESS_REVIEWS] if rbac else []),
        *([GET_NAMESPACES] if namespace_labels else []),
    ]


def explain_denial(status: int, permission: Permission) -> str:
    """Return what to change after a 401, or a 403 for want of this permission."""
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "the API server does not accept our own credential (401): "
            "check that this app's service account token is mounted and not expired"
        )
    needed, binding = "a ClusterRole with it", "a ClusterRoleBinding"
    if permission.resource.startswith("/"):
        needed = "the ClusterRole system:service-account-issuer-discovery"
    elif permission.namespace:
        needed, binding = "a Role in that namespace or a ClusterRole with it", "a RoleBinding there"
    return (
        f"the API server forbids us to {permission} (403): this app's service account needs {needed}, bound by "
        f"{binding}"
    )
