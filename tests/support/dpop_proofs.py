"""Makes DPoP proofs, right ones and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podproof._authentication.jwk import thumbprint
from tests.support.fake_api import NOW
from tests.support.signed_tokens import make_key, public_jwk, signed_token

URI = "https://ledger.example/accounts/7"

CLAIMS: dict[str, Any] = {"jti": "proof-1", "htm": "GET", "htu": URI, "iat": NOW}


def make_proof(
    claims: Mapping[str, object] | None = None,
    header: Mapping[str, object] | None = None,
    *,
    algorithm: str = "ES256",
    name: str = "alice",
) -> str:
    """Return a proof made with the key of this name. What is given replaces what is right; None removes it."""
    key = make_key(algorithm, name)
    given = {**CLAIMS, **(claims or {})}
    return signed_token(
        algorithm,
        key,
        header={"typ": "dpop+jwt", "kid": None, "jwk": public_jwk(key, use=None), **(header or {})},
        claims={name: value for name, value in given.items() if value is not None},
    )


def key_thumbprint(algorithm: str = "ES256", name: str = "alice") -> str:
    """Return the thumbprint of the key of this name."""
    return thumbprint(public_jwk(make_key(algorithm, name), use=None))
