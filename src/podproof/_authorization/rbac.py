"""Kubernetes RBAC as the policy: SubjectAccessReview asked whether a caller may do what it asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from hashlib import sha256
from typing import Any, Protocol

from podproof._authorization.path_pattern import is_path_pattern
from podproof._authorization.policy import Decision
from podproof._cache.fork_local import ForkLocal
from podproof._cache.single_flight import SingleFlight
from podproof._cache.ttl_cache import TTLCache
from podproof.errors import ConfigurationError, NotAllowed, PodAuthError, Unavailable
from podproof.identity import PodIdentity

REMEMBERED = 10_000
"""How many permissions, and as many refusals, are remembered."""

# What the API server makes of its own requests (apiserver/pkg/endpoints/request/requestinfo.go).
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

# Every service account may GET these of the API server's own, by system:discovery, system:public-info-viewer and
# system:service-account-issuer-discovery: a yes for them is no word on an app's paths of the same name.
_EVERYBODY_S = {"api", "apis", "openapi", "openid", ".well-known", "healthz", "livez", "readyz", "version"}


class AccessReviewer(Protocol):
    """Where SubjectAccessReviews are answered."""

    def review_access(self, spec: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Return a SubjectAccessReview with its status."""


class RBAC:
    """Lets a caller do what a ClusterRole or Role that is bound to it allows.

    Asked is for `nonResourceURLs`: the path, and the HTTP method in lower case as the verb. Those URLs are the whole
    cluster's: a `prefix` ("/bob") that is put before each path keeps one app's apart from the others'.

    With a `resource` ("services/proxy"), asked is for that resource of an API `group` in a `namespace` by its `name`,
    whatever the path: get for GET and HEAD, create for POST, update for PUT, patch and delete.

    A permission is remembered for `allowed_ttl`, a refusal for `denied_ttl` seconds. `timeout` is for one question, in
    seconds. `cluster` is by default the one of our surroundings.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        resource: str = "",
        group: str = "",
        namespace: str = "",
        name: str = "",
        allowed_ttl: float = 60.0,
        denied_ttl: float = 10.0,
        timeout: float = 5.0,
        reviews: int = 8,
        cluster: AccessReviewer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if prefix and not (is_path_pattern(prefix) and prefix[-1] not in "/*"):
            raise ConfigurationError(f'prefix was given {prefix!r}; possible is a plain path, such as "/bob"')
        if prefix and resource:
            raise ConfigurationError("a prefix was given, and a resource, which is asked for whatever the path")
        if not resource and (group or namespace or name):
            raise ConfigurationError('a group, namespace or name was given, and no resource, such as "services/proxy"')
        self._prefix = prefix
        self._resource = {
            "group": group,
            "resource": resource.partition("/")[0],
            "subresource": resource.partition("/")[2],
            "namespace": namespace,
            "name": name,
        }
        self._allowed_ttl = allowed_ttl
        self._denied_ttl = denied_ttl
        self._timeout = timeout
        self._monotonic = monotonic
        self._state = ForkLocal(lambda: _State(cluster or _cluster_around_us(reviews), reviews, monotonic))

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision] | None:
        """Decide from memory, or ask. Raises NotAllowed, Overloaded, Unavailable."""
        spec = {
            "user": identity.identity,
            "uid": identity.service_account.uid,
            "groups": identity.groups,
            "extra": dict(identity.extra),
            **self._attributes(method, path),
        }
        state = self._state.get()
        # The question itself, in one size however long the path.
        key = sha256(json.dumps(spec).encode()).digest()
        if state.allowed.get(key):
            return None
        refusal = state.denied.get(key)
        if refusal is not None:
            raise refusal.without_traceback()
        deadline = self._monotonic() + self._timeout
        return state.flights.join(key, lambda: self._find_out(state, key, spec, deadline), deadline)

    def close(self) -> None:
        """End this process's threads; a later question starts new ones."""
        state = self._state.pop()
        if state is not None:
            state.flights.close()

    def _attributes(self, method: str, path: str) -> Mapping[str, Mapping[str, str]]:
        if self._resource["resource"]:
            verb = _VERBS.get(method)
            if verb is None:
                raise NotAllowed(f"no verb of Kubernetes stands for the method {method!r:.20}")
            return {"resourceAttributes": {"verb": verb, **self._resource}}
        path = self._prefix + path
        if path.split("/", 2)[1] in _EVERYBODY_S:
            raise NotAllowed(
                "every service account of a cluster may read the API server's own path of this name, which says "
                'nothing about this app: exempt the path, or keep its paths apart by RBAC(prefix="/bob")'
            )
        return {"nonResourceAttributes": {"verb": method.lower(), "path": path}}

    def _find_out(self, state: _State, key: bytes, spec: Mapping[str, Any], deadline: float) -> Decision:
        """Ask, and remember the answer. Nothing raises: all who wait get the same verdict."""
        try:
            if self._monotonic() >= deadline:
                return Unavailable("it took too long until the API server could be asked what the caller may do")
            judge(state.cluster.review_access(spec, deadline), spec)
        except NotAllowed as refusal:
            state.denied.put(key, refusal.without_traceback(), self._denied_ttl)
            return refusal
        except PodAuthError as trouble:
            return trouble
        except Exception as error:  # noqa: BLE001  whatever it is, it is our trouble
            return Unavailable.unexpected(error)
        verdict: Decision = True
        state.allowed.put(key, verdict, self._allowed_ttl)
        return verdict


def judge(review: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Judge a SubjectAccessReview's answer.

    Raises NotAllowed, or Unavailable where this is no answer at all.
    """
    status = review.get("status")
    if not isinstance(status, dict) or not isinstance(status.get("allowed"), bool):
        raise Unavailable("the API server's SubjectAccessReview does not say what is allowed")
    if not status["allowed"] or status.get("denied"):
        asked = spec.get("nonResourceAttributes") or spec["resourceAttributes"]
        what = " ".join(f"{key}={value!r:.200}" for key, value in asked.items() if value)
        raise NotAllowed(f"Kubernetes RBAC does not allow {spec['user']}: {what}")


def _cluster_around_us(connections: int) -> AccessReviewer:
    # Here and not above: the official client takes about a second to import.
    from podproof._apiserver.client import APIServerClient  # noqa: PLC0415

    return APIServerClient(connections=connections)


class _State:
    """One process's memory and flights."""

    def __init__(self, cluster: AccessReviewer, reviews: int, monotonic: Callable[[], float]) -> None:
        self.cluster = cluster
        self.allowed: TTLCache[bytes, Decision] = TTLCache("allowed", REMEMBERED, monotonic)
        self.denied: TTLCache[bytes, NotAllowed] = TTLCache("denied", REMEMBERED, monotonic)
        self.flights: SingleFlight[bytes, Decision] = SingleFlight("access", reviews, monotonic)
