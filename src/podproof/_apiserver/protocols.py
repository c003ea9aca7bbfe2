"""The calls to the API server, as each of their users sees them: a test's stand-in needs no more than these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from podproof._apiserver.permissions import Permission


class TokenReviewer(Protocol):
    """Creates TokenReviews."""

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        """Return the TokenReview (authentication.k8s.io/v1) of a token, as JSON. Raises Unavailable."""


class PodReader(Protocol):
    """Reads pods."""

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any] | None:
        """Return a Pod (v1) as JSON, None if there is none of that name. Raises Unavailable."""


class NamespaceReader(Protocol):
    """Reads namespaces."""

    def read_namespace(self, name: str, deadline: float) -> Mapping[str, Any] | None:
        """Return a Namespace (v1) as JSON, None if there is none of that name. Raises Unavailable."""


class AccessReviewer(Protocol):
    """Creates SubjectAccessReviews."""

    def review_access(self, spec: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Return the SubjectAccessReview (authorization.k8s.io/v1) of this spec, as JSON. Raises Unavailable."""


class SigningKeyReader(Protocol):
    """Reads the public keys by which service account tokens are verified."""

    def signing_keys(self, deadline: float) -> Mapping[str, Any]:
        """Return the API server's JWK Set (RFC 7517 section 5), as JSON. Raises Unavailable."""


class PermissionReader(Protocol):
    """Knows our own credential for the API server, and what it permits."""

    def own_token(self) -> str | None:
        """Return the bearer token that we call the API server with, None if there is none."""

    def is_allowed(self, permission: Permission, deadline: float) -> bool:
        """Return True if we have a permission. Raises Unavailable."""


class IssuerReader(Protocol):
    """Knows the issuer of the cluster's service account tokens."""

    def issuer(self, deadline: float) -> str:
        """Return its `iss`. Raises Unavailable."""


class LineStream(Protocol):
    """GETs responses line by line as they arrive, one at a time, on one connection."""

    def get(self, path: str, permission: Permission, *, max_line: int = ...) -> AbstractContextManager[Iterator[bytes]]:
        """Return a context whose value yields the lines of the response, of at most `max_line` bytes each.

        Both raise Unavailable if our credential is rejected or lacks the permission, UnexpectedStatus for another
        status than 200, StreamSilent if nothing comes for too long, ConnectionFailed for a connection that fails.
        """

    def close(self) -> None:
        """Close the connection, from any thread: one that reads gets ConnectionFailed, and so does each later call."""


class StreamOpener(Protocol):
    """Opens streams."""

    def stream(self, *, read_timeout: float) -> LineStream:
        """Return a stream that has not connected yet; `read_timeout` is the longest silence in seconds."""
