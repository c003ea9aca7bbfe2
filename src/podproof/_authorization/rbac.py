"""Kubernetes RBAC as the policy: what is asked about a request. `access_reviews` asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from podproof._apiserver.protocols import AccessReviewer
from podproof._authorization.path_pattern import is_path_pattern
from podproof.errors import ConfigurationError, NotAllowed

# What the API server makes of its own requests (apiserver/pkg/endpoints/request/requestinfo.go).
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

# Every service account may GET these of the API server's own, by system:discovery, system:public-info-viewer and
# system:service-account-issuer-discovery: that RBAC allows them says nothing about an app's paths of the same name.
_PUBLIC_SEGMENTS = {"api", "apis", "openapi", "openid", ".well-known", "healthz", "livez", "readyz", "version"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RBAC:
    """Allows what a ClusterRole or Role that is bound to the caller's service account allows.

    By default a request is reviewed as a `nonResourceURL`: its path, and its HTTP method in lower case as the verb.
    Those URLs belong to the whole cluster: a `prefix` ("/bob") that is put before each path keeps one app's apart from
    the others'. With a `resource` ("services/proxy"), the review is about that resource of an API `group` in a
    `namespace` by its `name`, whatever the path: get for GET and HEAD, create for POST, update for PUT, patch, delete.

    The rest is the middleware's own unless it is given: `allowed_ttl` (its cache_ttl) and `denied_ttl` (its
    rejection_ttl) are how long decisions are cached, in seconds; `timeout` bounds one review, in seconds, within the
    request's own timeout; `reviews` is how many threads call the API server; `reviewer` is its client.

    Raises ConfigurationError.
    """

    prefix: str = ""
    resource: str = ""
    group: str = ""
    namespace: str = ""
    name: str = ""
    allowed_ttl: float | None = None
    denied_ttl: float | None = None
    timeout: float | None = None
    reviews: int | None = None
    reviewer: AccessReviewer | None = None

    def __post_init__(self) -> None:
        if self.prefix and not (is_path_pattern(self.prefix) and self.prefix[-1] not in "/*"):
            raise ConfigurationError(f'invalid RBAC prefix {self.prefix!r:.200}: expected a plain path, such as "/bob"')
        if self.prefix and self.resource:
            raise ConfigurationError(
                "RBAC prefix cannot be combined with resource, which is reviewed whatever the path"
            )
        if not self.resource and (self.group or self.namespace or self.name):
            raise ConfigurationError('RBAC group, namespace and name need a resource, such as "services/proxy"')

    def attributes(self, method: str, path: str) -> Mapping[str, Mapping[str, str]]:
        """Return what a SubjectAccessReview asks about a request. Raises NotAllowed if nothing can be asked."""
        if self.resource:
            verb = _VERBS.get(method)
            if verb is None:
                raise NotAllowed(f"no Kubernetes verb corresponds to the method {method!r:.20}")
            resource, _, subresource = self.resource.partition("/")
            return {
                "resourceAttributes": {
                    "verb": verb,
                    "group": self.group,
                    "resource": resource,
                    "subresource": subresource,
                    "namespace": self.namespace,
                    "name": self.name,
                }
            }
        path = self.prefix + path
        if path.split("/", 2)[1] in _PUBLIC_SEGMENTS:
            raise NotAllowed(
                "every service account of a cluster may read the API server's own path of this name, which says "
                'nothing about this app: exempt the path, or keep its paths apart by RBAC(prefix="/bob")'
            )
        return {"nonResourceAttributes": {"verb": method.lower(), "path": path}}
