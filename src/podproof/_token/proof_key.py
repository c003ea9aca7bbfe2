"""The key that a pod's issued tokens are bound to, and its DPoP proofs (RFC 9449 section 4.2)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

from podproof._token.token_hash import token_hash


class ProofKey:
    """A P-256 key that never leaves this process. `clock` returns Unix seconds."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(16),
    ) -> None:
        self._key = generate_private_key(SECP256R1())
        jwk: dict[str, Any] = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self._header = {"typ": "dpop+jwt", "jwk": {name: jwk[name] for name in ("kty", "crv", "x", "y")}}
        self._clock = clock
        self._new_id = new_id

    def prove(self, method: str, url: str, *, token: str | None = None, nonce: str | None = None) -> str:
        """Return the DPoP header of one request, with the access token that it sends."""
        claims = {
            "jti": self._new_id(),
            "htm": method,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(self._clock()),
        }
        if token is not None:
            claims["ath"] = token_hash(token)
        if nonce is not None:
            claims["nonce"] = nonce
        return jwt.encode(claims, self._key, algorithm="ES256", headers=self._header)
