"""A token, a TokenReview and a Pod as an API server has them, to be changed by each test; and who answers with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.options import Options

NOW = 1_800_000_000.0
PEER = "10.1.2.3"
ALICE = {
    "aud": ["bob"],
    "exp": NOW + 3600,
    "iat": NOW,
    "iss": "https://kubernetes.default.svc",
    "kubernetes.io": {
        "namespace": "default",
        "pod": {"name": "alice-pod", "uid": "pod-uid"},
        "serviceaccount": {"name": "alice", "uid": "account-uid"},
    },
    "nbf": NOW,
    "sub": "system:serviceaccount:default:alice",
}


@dataclass
class Clock:
    """A time that passes when a test says so, for all of podproof's clocks."""

    seconds: float = NOW

    def __call__(self) -> float:
        return self.seconds

    def passes(self, seconds: float) -> None:
        self.seconds += seconds


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(**changes: object) -> str:
    """Return Alice's token with other claims; None takes a claim away. Nobody verifies its signature here."""
    claims = {name: value for name, value in (ALICE | changes).items() if value is not None}
    return f"{segment(b'{}')}.{segment(json.dumps(claims).encode())}.{segment(b'signature')}"


def review(**status: object) -> dict[str, Any]:
    """Return the TokenReview that vouches for Alice's token, with other fields in its status."""
    user = {
        "username": "system:serviceaccount:default:alice",
        "uid": "account-uid",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/credential-id": ["JTI=1"],
            "authentication.kubernetes.io/pod-name": ["alice-pod"],
            "authentication.kubernetes.io/pod-uid": ["pod-uid"],
        },
    }
    return {"kind": "TokenReview", "status": {"authenticated": True, "audiences": ["bob"], "user": user} | status}


def reviewed_user(**changes: object) -> dict[str, Any]:
    """Return the TokenReview with other fields in its user; None takes a field away."""
    user = {name: value for name, value in (review()["status"]["user"] | changes).items() if value is not None}
    return review(user=user)


def pod(*, metadata: object = None, spec: object = None, status: object = None) -> dict[str, Any]:
    """Return Alice's pod with other fields in its parts."""
    parts: dict[str, Any] = {
        "metadata": {"namespace": "default", "name": "alice-pod", "uid": "pod-uid"},
        "spec": {"serviceAccountName": "alice", "nodeName": "node1"},
        "status": {"phase": "Running", "podIP": PEER, "podIPs": [{"ip": PEER}]},
    }
    for name, changes in (("metadata", metadata), ("spec", spec), ("status", status)):
        if isinstance(changes, dict):
            parts[name] |= changes
    return {"kind": "Pod"} | parts


@dataclass
class FakeAPI:
    """Answers as it is told to, or raises what it is told to, and counts."""

    review: Mapping[str, Any] | Exception = field(default_factory=review)
    pod: Mapping[str, Any] | Exception | None = field(default_factory=pod)
    before: Callable[[], object] = lambda: None
    reviews: int = 0
    reads: int = 0

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        self.reviews += 1
        self.before()
        if isinstance(self.review, Exception):
            raise self.review
        return self.review

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any] | None:
        self.reads += 1
        if isinstance(self.pod, Exception):
            raise self.pod
        return self.pod


@dataclass
class AuthenticatorFactory:
    """Makes authenticators that ask an API."""

    fake_api: FakeAPI
    time: Clock
    made: list[Authenticator] = field(default_factory=list)

    def __call__(self, **given: object) -> Authenticator:
        options = Options.read({"audience": "bob"} | given, {})
        verifier, pods = TokenReviewVerifier(self.fake_api, options.audience), PodLookup(self.fake_api)
        self.made.append(Authenticator(options, verifier, pods, now=self.time, monotonic=self.time))
        return self.made[-1]
