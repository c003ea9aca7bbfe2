"""The permissions that podproof needs on the API server."""

from __future__ import annotations

from typing import NamedTuple


class Permission(NamedTuple):
    """A verb on a resource of an API group, in the whole cluster or one namespace."""

    verb: str
    group: str
    resource: str
    namespace: str = ""

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "") + where


CREATE_TOKENREVIEWS = Permission("create", "authentication.k8s.io", "tokenreviews")
GET_PODS = Permission("get", "", "pods")
CREATE_ACCESS_REVIEWS = Permission("create", "authorization.k8s.io", "subjectaccessreviews")
CREATE_SELF_REVIEWS = Permission("create", "authorization.k8s.io", "selfsubjectaccessreviews")
GET_SIGNING_KEYS = Permission("get", "", "/openid/v1/jwks")
"""A path and no resource: the ClusterRole `system:service-account-issuer-discovery` has it."""
