"""Verifies DPoP proofs (RFC 9449 section 4.3): that whoever sends a token holds the key that it is bound to."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

from podproof._authentication.jwk import SigningKey, UnusableKey, parse_public_key, thumbprint
from podproof._authentication.jws import JWS, object_member, parse_jws, text_member
from podproof._token.jwt import numeric_date
from podproof._token.token_hash import token_hash
from podproof.errors import InvalidProof, MalformedToken, NonceNeeded
from podproof.exchange.nonces import Nonces
from podproof.exchange.replay_memory import ReplayMemory
from podproof.exchange.target_uri import normal_uri

ALGORITHMS = ("ES256", "EdDSA")
"""What proofs may be signed with: keys that are made, and verified, in microseconds."""

WINDOW = 60.0
"""Seconds by which a proof's `iat` may differ from our clock (RFC 9449 section 11.1)."""

MAX_PROOF = 4096
MAX_ID = 128
"""The longest proof, and its longest `jti`, in characters."""


class DPoPVerifier:
    """Verifies proofs, each once.

    `nonces`, where they are given, have to be in each proof. `now` returns Unix seconds.
    """

    algorithms = ALGORITHMS

    def __init__(
        self,
        replays: ReplayMemory | None = None,
        *,
        nonces: Nonces | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._replays = replays or ReplayMemory(WINDOW)
        self._nonces = nonces
        self._now = now

    def verify(
        self,
        proofs: Sequence[str],
        *,
        method: str,
        uris: Collection[str],
        access_token: str | None = None,
        key: str | None = None,
    ) -> str:
        """Return the thumbprint (RFC 7638) of the key that a request's proof was made with.

        `proofs` are the lines of the DPoP header, `uris` those that the request may have been sent to. `access_token`
        is the token that the request has, None at a token endpoint, and `key` the thumbprint that it is bound to.

        Raises InvalidProof, NonceNeeded, or Overloaded.
        """
        if len(proofs) != 1:
            raise InvalidProof(f"the request has {len(proofs)} DPoP headers")
        try:
            proof = parse_jws(proofs[0], most=MAX_PROOF)
            shown = self._check_key(proof)
            proof_id, issued_at = self._check_claims(proof, method, uris)
            _check_token(proof, access_token)
        except MalformedToken as malformed:
            raise InvalidProof(f"the proof is malformed: {malformed.reason}") from None
        if key is not None and not _equal(key, shown):
            raise InvalidProof("the proof is made with another key than the token is bound to")
        if not self._replays.add(shown, proof_id, issued_at, self._now()):
            raise InvalidProof("the proof was used before")
        return shown

    def _check_key(self, proof: JWS) -> str:
        if proof.header.get("typ") != "dpop+jwt":
            raise InvalidProof("the proof's typ is not dpop+jwt")
        jwk = object_member(proof.header, "jwk")
        algorithm = text_member(proof.header, "alg")
        if algorithm not in ALGORITHMS:
            raise InvalidProof(f"the proof's alg is none of {', '.join(ALGORITHMS)}")
        try:
            key = _load_key(*sorted((name, value) for name, value in jwk.items() if isinstance(value, str)))
        except UnusableKey as why:
            raise InvalidProof(f"the proof's key cannot be used: {why}") from None
        if not key.verify(algorithm, proof.signed, proof.signature):
            raise InvalidProof("the proof is not signed with its key")
        return thumbprint(jwk)

    def _check_claims(self, proof: JWS, method: str, uris: Collection[str]) -> tuple[str, float]:
        proof_id, issued_at = text_member(proof.claims, "jti"), numeric_date(proof.claims, "iat")
        if len(proof_id) > MAX_ID:
            raise InvalidProof(f"the proof's jti is longer than {MAX_ID} characters")
        if text_member(proof.claims, "htm") != method:
            raise InvalidProof("the proof is for another method")
        target = normal_uri(text_member(proof.claims, "htu"))
        if target is None or target not in map(normal_uri, uris):
            raise InvalidProof(f"the proof is for another URI than {' or '.join(sorted(uris))}")
        if abs(age := self._now() - issued_at) > WINDOW:
            raise InvalidProof(f"the proof was issued {age:.0f} s ago by our clock: expected {WINDOW:g} at most")
        if self._nonces is not None and not self._nonces.accepts(proof.claims.get("nonce")):
            raise NonceNeeded("the proof has no nonce of ours, or an old one", self._nonces.current())
        return proof_id, issued_at


def _check_token(proof: JWS, access_token: str | None) -> None:
    if access_token is not None and not _equal(text_member(proof.claims, "ath"), token_hash(access_token)):
        raise InvalidProof("the proof is for another token")


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


@lru_cache(maxsize=1024)  # a pod makes one key, and many proofs with it
def _load_key(*members: tuple[str, Any]) -> SigningKey:
    """Return the key of a JWK's members. Raises UnusableKey."""
    return parse_public_key(dict(members))
