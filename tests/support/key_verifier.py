"""A verifier by signing keys whose clock, key source and review a test sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from podproof._authentication.jws import JWS
from podproof._authentication.key_set import KeySet
from podproof._authentication.signing_keys import SigningKeyVerifier
from podproof._authentication.token_review import ReviewedToken
from podproof.identity import ServiceAccount
from tests.support.fake_api import ALICE, Clock
from tests.support.signed_tokens import jwk_of, jwks, signed_token

ISSUER = str(ALICE["iss"])
PRIVATE: dict[str, Any] = dict(ALICE["kubernetes.io"])  # type: ignore[call-overload]  # an object, as dicts of JSON go
REVIEWED = ReviewedToken(ServiceAccount("a", "b"), "reviewed", "uid", "bob", None, (), {})


@dataclass
class FakeSource:
    """Returns `document`, or raises it if it is an exception, and counts its fetches. `before` is called in each."""

    document: Any = field(default_factory=lambda: jwks(jwk_of("ES256")))
    before: Callable[[], object] = lambda: None
    fetches: int = 0
    deadline: float = 0

    def __str__(self) -> str:
        return "the fake source"

    def fetch(self, deadline: float) -> Mapping[str, Any]:
        self.fetches += 1
        self.deadline = deadline
        self.before()
        if isinstance(self.document, Exception):
            raise self.document
        return dict(self.document)


@dataclass
class FakeReview:
    """Returns REVIEWED for every token, and counts them."""

    reviews: int = 0
    deadline: float = 0

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        self.reviews += 1
        self.deadline = deadline
        return REVIEWED

    def verify_at_once(self, token: JWS) -> None:
        return None


@dataclass
class Verifying:
    """A verifier of one issuer's keys with a clock, a source and a review that a test sets."""

    time: Clock
    source: FakeSource = field(default_factory=FakeSource)
    review: FakeReview = field(default_factory=FakeReview)

    def __post_init__(self) -> None:
        self.key_set = KeySet(self.source, monotonic=self.time, now=self.time)
        self.verifier = SigningKeyVerifier({ISSUER: self.key_set}, ["bob"], review=self.review, now=self.time)

    def verify(self, token: str, seconds: float = 5) -> ReviewedToken:
        return self.verifier.verify(token, self.time() + seconds)

    def is_reviewed(self, token: str) -> bool:
        """Return True if the token is asked about by review, False if it is accepted by the keys."""
        return self.verify(token) is REVIEWED


def token_with(**claims: object) -> str:
    """Return a signed token with other claims; None removes one."""
    return signed_token(claims={name: value for name, value in (ALICE | claims).items() if value is not None})
