"""The calls that podproof makes to the Kubernetes API server, on the official client's configuration and connections.

Responses are returned as raw JSON; what they mean is decided elsewhere. A call without a usable response raises
`Unavailable`, whose reason says what to change and never holds a credential.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from kubernetes.client import Configuration

from podproof._apiserver.connection import Connection, Endpoint, load_configuration
from podproof._apiserver.permissions import (
    CREATE_ACCESS_REVIEWS,
    CREATE_SELF_REVIEWS,
    CREATE_TOKENREVIEWS,
    GET_DISCOVERY,
    GET_NAMESPACES,
    GET_PODS,
    GET_SIGNING_KEYS,
    Permission,
    explain_denial,
)
from podproof._apiserver.response import APIResponse, ConnectionFailed
from podproof._apiserver.stream import CONNECT_TIMEOUT, KEEPALIVE, RESPONSE_TIMEOUT, APIStream, Keepalive
from podproof._cache.fork_local import ForkLocal
from podproof._telemetry import metrics
from podproof._token.jwt import read_claims
from podproof.errors import MalformedToken, Unavailable

ATTEMPTS = 3
ATTEMPT_TIMEOUT = 1.25
"""Seconds after which a call is tried again on a new connection, while attempts are left.

Kubernetes' service level objective is 1 s for 99 % of calls about one object
(https://github.com/kubernetes/community/blob/master/sig-scalability/slos/api_call_latency.md).
"""
BACKOFF = 0.1
"""Seconds before a first retry, at most; twice as long before each further one."""

_TRANSIENT = {429, 500, 502, 503, 504}


class APIServerClient:
    """Calls the API server.

    `connections` is how many are kept open. `impersonate` is the username to act as; a service account's brings its
    groups too. `load` fills in a Configuration: by default as `kubectl` would. That happens at the first call: the
    constructor does no I/O.

    A `deadline` is in seconds on the `monotonic` clock. Transient failures are retried within it, after a random pause.
    An attempt takes `attempt_timeout` seconds and half of the time left at most, the last one all that is left: a
    connection that hangs costs a caller no more than that.
    """

    def __init__(
        self,
        *,
        connections: int = 8,
        impersonate: str | None = None,
        load: Callable[[Configuration], None] | None = None,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._connections = ForkLocal(
            lambda: Connection(load or load_configuration, connections, impersonate, monotonic)
        )
        self._attempt_timeout = attempt_timeout
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
            return _expect_kind("TokenReview", self._call("POST", path, CREATE_TOKENREVIEWS, deadline, body))

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any] | None:
        """Return a Pod (v1), read from etcd and not from the API server's cache, or None if there is none.

        Only a Status about this very pod says so: another 404 is about a path, or from something before the API server.
        """
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        with metrics.timed("pods"):
            response = self._call("GET", path, GET_PODS, deadline)
        return _expect_object("Pod", "pods", f"{namespace}/{name}", response)

    def read_namespace(self, name: str, deadline: float) -> Mapping[str, Any] | None:
        """Return a Namespace (v1), read from etcd, or None if there is none, as with `read_pod`."""
        with metrics.timed("namespaces"):
            response = self._call("GET", f"/api/v1/namespaces/{quote(name, safe='')}", GET_NAMESPACES, deadline)
        return _expect_object("Namespace", "namespaces", name, response)

    def review_access(self, spec: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Return the SubjectAccessReview (authorization.k8s.io/v1) of this spec."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        with metrics.timed("subjectaccessreviews"):
            return _expect_kind("SubjectAccessReview", self._call("POST", path, CREATE_ACCESS_REVIEWS, deadline, body))

    def signing_keys(self, deadline: float) -> Mapping[str, Any]:
        """Return the JWK Set (RFC 7517 section 5) by which service account tokens are verified (KEP-1393).

        Without those keys that the API server does not publish: an external signer's may be among them (KEP-740).
        """
        with metrics.timed("jwks"):
            response = self._call("GET", GET_SIGNING_KEYS.resource, GET_SIGNING_KEYS, deadline)
        if response.status != HTTPStatus.OK:
            raise Unavailable(f"unexpected API server response: expected a JWK Set, got status {response.status}")
        return response.document

    def issuer(self, deadline: float) -> str:
        """Return the issuer of the cluster's service account tokens: that of our own, else the one that it publishes.

        Our own does not tell if it is no bound token (KEP-1205): one from a Secret, which is what the kubelet mounted
        before Kubernetes 1.21, has "kubernetes/serviceaccount", and a person's is from another issuer.

        Raises Unavailable.
        """
        with suppress(MalformedToken):
            claims = read_claims(self.own_token() or "")
            own = claims.get("iss")
            if isinstance(own, str) and "kubernetes.io" in claims:
                return own
        published = self._call("GET", GET_DISCOVERY.resource, GET_DISCOVERY, deadline).document.get("issuer")
        if not isinstance(published, str):
            raise Unavailable("unexpected API server response: expected its OpenID configuration with an issuer")
        return published

    def is_allowed(self, permission: Permission, deadline: float) -> bool:
        """Return True if we have a permission, by a SelfSubjectAccessReview (authorization.k8s.io/v1)."""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": permission.attributes,
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        review = _expect_kind("SelfSubjectAccessReview", self._call("POST", path, CREATE_SELF_REVIEWS, deadline, body))
        status = review.get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    def get(self, path: str, deadline: float) -> APIResponse:
        """Return the response to a GET: an object, a list or a document; 404 is returned too."""
        return self._call("GET", path, Permission("get", "", path), deadline)

    def stream(
        self,
        *,
        read_timeout: float,
        connect_timeout: float = CONNECT_TIMEOUT,
        response_timeout: float = RESPONSE_TIMEOUT,
        keepalive: Keepalive = KEEPALIVE,
    ) -> APIStream:
        """Return what GETs responses line by line as they arrive, on one connection of its own. No I/O.

        The timeouts are in seconds: until the connection is made, until a response's headers come, and between two
        pieces of its body. It belongs to the process that it was made in.
        """
        return APIStream(
            self._connections.get,
            self._connections.discard,
            connect_timeout=connect_timeout,
            response_timeout=min(response_timeout, read_timeout),
            read_timeout=read_timeout,
            keepalive=keepalive,
        )

    def endpoint(self) -> Endpoint:
        """Return where the API server is. Raises Unavailable if no configuration is found."""
        return self._connections.get().endpoint

    def own_token(self) -> str | None:
        """Return the bearer token of our calls to the API server, None if there is none now."""
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

    def _call(
        self,
        method: str,
        path: str,
        permission: Permission,
        deadline: float,
        body: Mapping[str, Any] | None = None,
    ) -> APIResponse:
        """Return the response after up to ATTEMPTS attempts, and one more with a new credential if ours is rejected."""
        reloaded, failures = False, 0
        while True:
            connection = self._connections.get()
            seconds = deadline - self._monotonic()
            if failures < ATTEMPTS - 1:
                seconds = min(seconds / 2, self._attempt_timeout)
            try:
                response = connection.send(method, path, body, seconds)
            except ConnectionFailed as failure:
                reason, pause = str(failure), None
            else:
                if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    if reloaded:
                        raise Unavailable(explain_denial(response.status, permission))
                    reloaded = True
                    self._connections.discard(connection)
                    continue
                if response.status not in _TRANSIENT:
                    return response
                reason, pause = f"status {response.status}", response.retry_after
            failures += 1
            if pause is None:
                pause = self._uniform(0, BACKOFF * 2 ** (failures - 1))
            if failures == ATTEMPTS or self._monotonic() + pause >= deadline:
                raise Unavailable(f"API server request failed ({method} {path}): {reason}")
            self._sleep(pause)


def _expect_kind(kind: str, response: APIResponse) -> Mapping[str, Any]:
    document = response.document
    if response.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or document.get("kind") != kind:
        raise Unavailable(f"unexpected API server response: expected a {kind}, got status {response.status}")
    return document


def _expect_object(kind: str, resource: str, path: str, response: APIResponse) -> Mapping[str, Any] | None:
    if response.status != HTTPStatus.NOT_FOUND:
        return _expect_kind(kind, response)
    if _is_not_found(response.document, resource, path.rpartition("/")[2]):
        return None
    raise Unavailable(f"unexpected API server response: a 404 that is not about the {kind.lower()} {path}")


def _is_not_found(status: Mapping[str, Any], resource: str, name: str) -> bool:
    """Return True if a Status (API conventions) says that the core group has no object of that name."""
    details = status.get("details")
    if not isinstance(details, dict) or status.get("reason") != "NotFound":
        return False
    return (details.get("group", ""), details.get("kind"), details.get("name")) == ("", resource, name)
