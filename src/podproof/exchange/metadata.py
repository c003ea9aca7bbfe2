"""The discovery documents: RFC 8414 and OpenID Connect Discovery 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podproof.exchange.token_request import GRANT_TYPES

SIGNING_ALGORITHMS = ("ES256", "EdDSA")


def authorization_server_metadata(issuer: str) -> Mapping[str, Any]:
    """Return what both documents say."""
    base = issuer.rstrip("/")
    return {
        "issuer": issuer,
        "token_endpoint": f"{base}/token",
        "jwks_uri": f"{base}/jwks.json",
        "response_types_supported": [],
        "grant_types_supported": [*GRANT_TYPES],
        "id_token_signing_alg_values_supported": [*SIGNING_ALGORITHMS],
    }
