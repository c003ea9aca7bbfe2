"""Tokens of a real one's shape and size, and an API server that answers at once and counts its calls."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

ADDRESS = "10.0.0.1"
AUDIENCE = "bob"

_POD = "authentication.kubernetes.io/pod-"


class Tokens:
    """Makes tokens that nobody signed, each another one: as long as a real one's, signature included."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311  there is no secret here

    def make(
        self,
        *,
        name: str = "alice-7d4b9c6f5-x2x9k",
        audience: str = AUDIENCE,
        issued_at: float | None = None,
        lifetime: float = 3600,
    ) -> str:
        """Return a token that is bound to a pod. `issued_at` is in Unix seconds, now if not given."""
        begin = int(time.time() if issued_at is None else issued_at)
        claims = {
            "aud": [audience],
            "exp": begin + int(lifetime),
            "iat": begin,
            "iss": "https://kubernetes.default.svc.cluster.local",
            "jti": self.uid(),
            "kubernetes.io": {
                "namespace": "default",
                "node": {"name": "node1", "uid": "6f3c1c5e-0d0f-4d0e-9d0b-6d5c0f1a2b3c"},
                "pod": {"name": name, "uid": self.uid()},
                "serviceaccount": {"name": "alice", "uid": "0b9c1a52-5a3e-4d4e-8f57-3f1d1f0c7a11"},
            },
            "nbf": begin,
            "sub": "system:serviceaccount:default:alice",
        }
        head = {"alg": "RS256", "kid": _encode(self._random.randbytes(32))}
        return ".".join((_encode(_json(head)), _encode(_json(claims)), _encode(self._random.randbytes(256))))

    def uid(self) -> str:
        """Return what looks like a Kubernetes UID."""
        digits = f"{self._random.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class CountingAPI:
    """Vouches for every token and knows every pod, as JSON parsed anew for each call."""

    def __init__(self) -> None:
        self.reviews = 0
        self.reads = 0

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return a TokenReview as Kubernetes 1.30 and later answer it."""
        self.reviews += 1
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["kubernetes.io"]
        review = {
            "status": {
                "authenticated": True,
                "audiences": list(audiences),
                "user": {
                    "username": f"system:serviceaccount:{claims['namespace']}:{claims['serviceaccount']['name']}",
                    "uid": claims["serviceaccount"]["uid"],
                    "groups": [
                        "system:serviceaccounts",
                        f"system:serviceaccounts:{claims['namespace']}",
                        "system:authenticated",
                    ],
                    "extra": {
                        "authentication.kubernetes.io/credential-id": [f"JTI={claims['pod']['uid']}"],
                        "authentication.kubernetes.io/node-name": [claims["node"]["name"]],
                        "authentication.kubernetes.io/node-uid": [claims["node"]["uid"]],
                        f"{_POD}name": [claims["pod"]["name"]],
                        # A pod's name is all that the read has to go by, so here its UID is made from it.
                        f"{_POD}uid": [f"uid-of-{claims['pod']['name']}"],
                    },
                },
            }
        }
        parsed: Mapping[str, Any] = json.loads(_json(review))
        return parsed

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return a Pod, with no more in it than is looked at."""
        self.reads += 1
        pod = {
            "metadata": {"namespace": namespace, "name": name, "uid": f"uid-of-{name}"},
            "spec": {"serviceAccountName": "alice", "nodeName": "node1"},
            "status": {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]},
        }
        parsed: Mapping[str, Any] = json.loads(_json(pod))
        return parsed


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
