"""Alice's token, TokenReview and Pod as Kubernetes has them, for each test to change, and fakes of the API server.

The benchmarks use the same fakes.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import NAMESPACE_DNS, uuid5

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from podproof._apiserver.permissions import Permission
from podproof._apiserver.protocols import IssuerReader, PodReader, TokenReviewer
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
    """A clock that only a test moves, for both wall-clock and monotonic seconds."""

    seconds: float = NOW

    def __call__(self) -> float:
        return self.seconds

    def passes(self, seconds: float) -> None:
        self.seconds += seconds


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
"""Signs Alice's tokens, always by the same bytes, so that a token has one text."""

JWK = {"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": segment(KEY.public_key().public_bytes_raw())}

FORGED = segment(bytes(64))
"""The signature of forged tokens."""


def token(**changes: object) -> str:
    """Return Alice's token with other claims; None removes a claim."""
    claims = {name: value for name, value in (ALICE | changes).items() if value is not None}
    signed = f"{segment(_HEADER)}.{segment(json.dumps(claims).encode())}"
    return f"{signed}.{segment(KEY.sign(signed.encode()))}"


def forged(**changes: object) -> str:
    """Return the same with a signature that is not genuine, which a TokenReview and the key both find."""
    return f"{token(**changes).rpartition('.')[0]}.{FORGED}"


_HEADER = b'{"alg":"EdDSA","kid":"1"}'


def review(**status: object) -> dict[str, Any]:
    """Return a TokenReview that authenticates Alice, with other fields in its status."""
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
    """Return the same TokenReview with other fields in its user; None removes a field."""
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


def namespace(**labels: str) -> dict[str, Any]:
    """Return the namespace `default` with these labels and the one that each has."""
    metadata = {"name": "default", "labels": {"kubernetes.io/metadata.name": "default", **labels}}
    return {"kind": "Namespace", "metadata": metadata}


@dataclass
class FakeAPI:
    """Responds with `review`, `pod` and `namespace`, or raises them if they are exceptions, and counts the calls.

    `before` is called in each review and each read of a namespace, before its response. `watches` are told of each
    change of `pod`, as by a watch.
    """

    review: Mapping[str, Any] | Exception = field(default_factory=review)
    pod: Mapping[str, Any] | Exception | None = field(default_factory=pod)
    namespace: Mapping[str, Any] | Exception | None = field(default_factory=lambda: namespace(env="prod"))
    before: Callable[[], object] = lambda: None
    reviews: int = 0
    reads: int = 0
    asked_namespaces: list[tuple[str, float]] = field(default_factory=list)
    watches: list[Callable[[Mapping[str, Any] | None], None]] = field(default_factory=list)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "pod" and not isinstance(value, Exception):
            for tell in self.__dict__.get("watches", ()):
                tell(value)

    def signing_keys(self, deadline: float) -> Mapping[str, Any]:
        return {"keys": [JWK]}

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        self.reviews += 1
        self.before()
        if isinstance(self.review, Exception):
            raise self.review
        return review(authenticated=False) if token.endswith(f".{FORGED}") else self.review

    def issuer(self, deadline: float) -> str:
        return str(ALICE["iss"])

    def own_token(self) -> None:
        return None

    def is_allowed(self, permission: Permission, deadline: float) -> bool:
        return True

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any] | None:
        self.reads += 1
        if isinstance(self.pod, Exception):
            raise self.pod
        return self.pod

    def read_namespace(self, name: str, deadline: float) -> Mapping[str, Any] | None:
        self.asked_namespaces.append((name, deadline))
        self.before()
        if isinstance(self.namespace, Exception):
            raise self.namespace
        return self.namespace


class ClaimsAPI(FakeAPI):
    """Authenticates every token as the pod in its claims, with JSON that is parsed for each call."""

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        self.reviews += 1
        self.before()
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["kubernetes.io"]
        namespace, account, pod, node = (claims[name] for name in ("namespace", "serviceaccount", "pod", "node"))
        extra = {
            "credential-id": [f"JTI={pod['uid']}"],
            "node-name": [node["name"]],
            "node-uid": [node["uid"]],
            "pod-name": [pod["name"]],
            "pod-uid": [pod["uid"]],
        }
        user = {
            "username": f"system:serviceaccount:{namespace}:{account['name']}",
            "uid": account["uid"],
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
            "extra": {f"authentication.kubernetes.io/{name}": values for name, values in extra.items()},
        }
        return as_parsed_json(review(user=user, audiences=list(audiences)))

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any]:
        self.reads += 1
        return as_parsed_json(pod(metadata={"namespace": namespace, "name": name, "uid": uid_of(name)}))


class TokenFactory:
    """Makes bound tokens that are all distinct and as long as real ones. Their signatures are not real."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def __call__(
        self,
        *,
        pod_name: str = "alice-7d4b9c6f5-x2x9k",
        audience: str = "bob",
        issued_at: float | None = None,
        lifetime: float = 3600,
    ) -> str:
        """Return a token. `issued_at` is in Unix seconds, by default now; `lifetime` is in seconds."""
        begins = int(time.time() if issued_at is None else issued_at)
        claims = {
            "aud": [audience],
            "exp": begins + int(lifetime),
            "iat": begins,
            "iss": "https://kubernetes.default.svc.cluster.local",
            "jti": uid_of(str(self._random.random())),
            "kubernetes.io": {
                "namespace": "default",
                "node": {"name": "node1", "uid": uid_of("node1")},
                "pod": {"name": pod_name, "uid": uid_of(pod_name)},
                "serviceaccount": {"name": "alice", "uid": uid_of("alice")},
            },
            "nbf": begins,
            "sub": "system:serviceaccount:default:alice",
        }
        header = {"alg": "RS256", "kid": segment(self._random.randbytes(32))}
        parts = (compact_json(header), compact_json(claims), self._random.randbytes(256))
        return ".".join(map(segment, parts))


def uid_of(name: str) -> str:
    """Return the UID of the object of this name: the same in a token, its TokenReview and its Pod."""
    return str(uuid5(NAMESPACE_DNS, name))


def compact_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def as_parsed_json(value: object) -> Mapping[str, Any]:
    parsed: Mapping[str, Any] = json.loads(compact_json(value))
    return parsed


@dataclass
class AuthenticatorFactory:
    """Makes authenticators that call one API, with `build`, by default by reviews and lookups. `made` has them all."""

    fake_api: FakeAPI
    time: Clock
    build: Callable[[FakeAPI, Options, Clock], Authenticator] = lambda api, options, time: authenticator_for(
        api, options, now=time, monotonic=time
    )
    made: list[Authenticator] = field(default_factory=list)

    def __call__(self, **options: object) -> Authenticator:
        complete = Options.read({"audience": "bob"} | options, {})
        self.made.append(self.build(self.fake_api, complete, self.time))
        return self.made[-1]


class APICalls(TokenReviewer, PodReader, IssuerReader, Protocol):
    """The calls to the API server that authenticate a caller."""


def authenticator_for(
    api: APICalls,
    options: Options,
    *,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Authenticator:
    """Return an authenticator that calls this API, without a check at startup."""
    verifier = TokenReviewVerifier(api, options.audience)
    pods = PodLookup(api, max_outage=options.max_outage or 0.0, monotonic=monotonic)
    return Authenticator(options, verifier, pods, issuer_reader=api, now=now, monotonic=monotonic)
