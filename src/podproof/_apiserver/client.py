"""The calls that podproof makes to the Kubernetes API server, on the official client's configuration and connections.

Responses are handed on as raw JSON: deciding is for other rooms. Whatever keeps a response from us is `Unavailable`,
with a reason for the log that says what to change and never holds a credential.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from kubernetes.client import Configuration

from podproof._apiserver.connection import APIResponse, Connection, ConnectionFailed, Endpoint, load_configuration
from podproof._apiserver.permissions import (
    CREATE_ACCESS_REVIEWS,
    CREATE_SELF_REVIEWS,
    CREATE_TOKENREVIEWS,
    GET_PODS,
    Permission,
)
from podproof._cache.fork_local import ForkLocal
from podproof._telemetry import metrics
from podproof.errors import Unavailable

ATTEMPTS = 3
BACKOFF = 0.1
"""Seconds that a first retry waits at the most; each further one up to twice as long."""

_TRANSIENT = {429, 500, 502, 503, 504}


class APIServerClient:
    """Asks the API server.

    `connections` is how many are kept open. `impersonate` is the username to act as: a service account's, which gets
    its groups too. A `deadline` is in seconds on the `monotonic` clock; transient failures are
    tried again within it, after a random pause. `load` fills in a Configuration: by default as `kubectl` would.
    """

    def __init__(
        self,
        *,
        connections: int = 8,
        impersonate: str | None = None,
        load: Callable[[Configuration], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._connections = ForkLocal(
            lambda: Connection(load or load_configuration, connections, impersonate, monotonic)
        )
        self._monotonic = monotonic
        self._sleep = sleep
        self._uniform = uniform

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        """Return the TokenReview (authentication.k8s.io/v1) of a token for our audiences."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": list(audiences)},
        }
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        with metrics.timed("tokenreviews"):
            return self._expect("TokenReview", self._ask("POST", path, CREATE_TOKENREVIEWS, deadline, body))

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any] | None:
        """Return a Pod (v1), read live from the API server's store, or None where there is none of that name."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        with metrics.timed("pods"):
            response = self._ask("GET", path, GET_PODS, deadline)
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        return self._expect("Pod", response)

    def review_access(self, spec: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Return the SubjectAccessReview (authorization.k8s.io/v1) of this spec."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        with metrics.timed("subjectaccessreviews"):
            return self._expect("SubjectAccessReview", self._ask("POST", path, CREATE_ACCESS_REVIEWS, deadline, body))

    def is_allowed(self, permission: Permission, deadline: float) -> bool:
        """Tell whether we have a permission, by a SelfSubjectAccessReview (authorization.k8s.io/v1)."""
        attributes = permission._asdict()
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        review = self._expect("SelfSubjectAccessReview", self._ask("POST", path, CREATE_SELF_REVIEWS, deadline, body))
        status = review.get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    def get(self, path: str, deadline: float) -> APIResponse:
        """Read an object, a list or a document by its path; a 404 is an response too."""
        return self._ask("GET", path, Permission("get", "", path), deadline)

    def endpoint(self) -> Endpoint:
        """Return where the API server is. Raises Unavailable where nothing tells us."""
        return self._connections.get().endpoint

    def own_token(self) -> str | None:
        """Return the bearer token that we call the API server with, None where there is none to be had now."""
        try:
            header = self._connections.get().credential().get("Authorization")
        except Unavailable:
            return None
        return header.partition(" ")[2] if header else None

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        connection = self._connections.pop()
        if connection is not None:
            connection.pool.close()

    def _expect(self, kind: str, response: APIResponse) -> Mapping[str, Any]:
        document = response.document
        if response.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or document.get("kind") != kind:
            raise Unavailable(f"the API server answered {response.status} where a {kind} was asked for")
        return document

    def _ask(
        self,
        method: str,
        path: str,
        permission: Permission,
        deadline: float,
        body: Mapping[str, Any] | None = None,
    ) -> APIResponse:
        """Make one call: up to ATTEMPTS times, and once more with our credential read anew."""
        renewed, failures = False, 0
        while True:
            connection = self._connections.get()
            try:
                response = connection.send(method, path, body, deadline - self._monotonic())
            except ConnectionFailed as trouble:
                reason, pause = str(trouble), None
            else:
                if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    if renewed:
                        raise Unavailable(_explain_refusal(response.status, permission))
                    renewed = True
                    self._connections.drop(connection)
                    continue
                if response.status not in _TRANSIENT:
                    return response
                reason, pause = f"it answered {response.status}", response.retry_after
            failures += 1
            if pause is None:
                pause = self._uniform(0, BACKOFF * 2 ** (failures - 1))
            if failures == ATTEMPTS or self._monotonic() + pause >= deadline:
                raise Unavailable(f"the API server did not help ({method} {path}): {reason}")
            self._sleep(pause)


def _explain_refusal(status: int, permission: Permission) -> str:
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "the API server does not accept our own credential (401): "
            "is this app's service account token still mounted, and fresh?"
        )
    return (
        f"the API server forbids us to {permission} (403): this app's service account needs a ClusterRole with it, "
        "bound by a ClusterRoleBinding"
    )
