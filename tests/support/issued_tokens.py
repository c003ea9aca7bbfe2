"""Makes tokens as a token exchange issues them (RFC 9068), right ones and others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tests.support.signed_tokens import jwk_of, jwks, make_key, signed_token

ISSUER = "https://bridge"
AUDIENCE = "ledger"
POD = {
    "namespace": "default",
    "pod": {"name": "alice-pod", "uid": "pod-uid"},
    "serviceaccount": {"name": "alice", "uid": "account-uid"},
}


def issued_claims(*, pod: object = POD, **changes: object) -> dict[str, Any]:
    """Return the claims of Alice's token, `pod` being that of her pod; None removes one."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": "system:serviceaccount:default:alice",
        "aud": AUDIENCE,
        "exp": now + 300,
        "iat": now,
        "jti": "token-1",
        "client_id": "system:serviceaccount:default:alice",
        "kubernetes.io": pod,
    }
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def issued_token(
    *, key: str = "ES256", name: str = "", header: Mapping[str, object] | None = None, **changes: Any
) -> str:
    """Return Alice's token with other claims, signed with the key of this algorithm and name."""
    signing = make_key(key, name) if name else None
    return signed_token(key, signing, header={"typ": "at+jwt", **(header or {})}, claims=issued_claims(**changes))


def published_keys() -> dict[str, Any]:
    """Return the keys of the exchange, by their algorithms."""
    return jwks(jwk_of("ES256"), jwk_of("EdDSA"))
