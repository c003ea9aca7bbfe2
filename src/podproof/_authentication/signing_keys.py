"""Verifies tokens by their issuer's signing keys, without a call to the API server for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from podproof._authentication.jwk import SigningKey
from podproof._authentication.jws import JWS
from podproof._authentication.key_set import KeySet
from podproof._authentication.signed_token import (
    SignedToken,
    check_signature,
    parse_signed_token,
    parse_verified_claims,
    read_signed_token,
)
from podproof._authentication.token_review import ReviewedToken
from podproof._authentication.token_verifier import TokenVerifier


class SigningKeyVerifier:
    """Verifies tokens by the keys of their issuers, for our audiences; what those keys say nothing about is reviewed.

    `key_sets` has the keys of each issuer, by the `iss` of its tokens; issuers may share a set. `review` verifies
    tokens of other issuers, tokens that name no key, and tokens that name a key which is not in the set: managed
    clusters publish only some of their keys. `now` returns Unix seconds.

    Other than a TokenReview, this does not look up whether the service account and the pod are still there. The pod is
    read and matched afterwards, for both.
    """

    def __init__(
        self,
        key_sets: Mapping[str, KeySet],
        audiences: Sequence[str],
        *,
        review: TokenVerifier,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._key_sets = dict(key_sets)
        self._audiences = tuple(audiences)
        self._review = review
        self._now = now

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what a valid token says. `deadline` is in monotonic seconds.

        Raises SignatureInvalid if the token names a key and is not signed with it, InvalidToken of another kind, or
        Unavailable.
        """
        signed = parse_signed_token(token)
        key_set = self._key_set_of(signed)
        keys = () if key_set is None else key_set.find(signed.key_id, deadline)
        return self._verify(signed, keys) or self._review.verify(token, deadline)

    def verify_at_once(self, token: JWS) -> ReviewedToken | None:
        """Return the same without any I/O, None if the keys have to be fetched, or the token reviewed.

        Raises SignatureInvalid, or InvalidToken of another kind.
        """
        signed = read_signed_token(token)
        key_set = self._key_set_of(signed)
        return None if key_set is None else self._verify(signed, key_set.find_at_once(signed.key_id))

    def _key_set_of(self, token: SignedToken) -> KeySet | None:
        return self._key_sets.get(token.issuer) if token.key_id else None

    def _verify(self, token: SignedToken, keys: Sequence[SigningKey]) -> ReviewedToken | None:
        if not keys:
            return None
        check_signature(token, keys)
        return parse_verified_claims(token, self._audiences, self._now())
