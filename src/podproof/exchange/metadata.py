"""The discovery documents of an exchange: RFC 8414, and OpenID Connect Discovery 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podproof.exchange.dpop import DPoPVerifier
from podproof.exchange.profile import ALGORITHMS
from podproof.exchange.token_request import GRANT_TYPES

# What API servers sign their tokens with: pkg/serviceaccount/jwt.go.
_ASSERTION_ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")


def discovery_document(issuer: str) -> Mapping[str, Any]:
    """Return what both documents say.

    A client authenticates by a token that its cluster has signed with a private key (RFC 7523 section 2.2), for which
    the registered name is private_key_jwt.
    """
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks.json",
        "introspection_endpoint": f"{issuer}/introspect",
        "response_types_supported": [],  # there is no authorization endpoint
        "grant_types_supported": [*GRANT_TYPES],
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": [*_ASSERTION_ALGORITHMS],
        "introspection_endpoint_auth_methods_supported": ["private_key_jwt"],
        "introspection_endpoint_auth_signing_alg_values_supported": [*_ASSERTION_ALGORITHMS],
        "dpop_signing_alg_values_supported": [*DPoPVerifier.algorithms],
        "subject_types_supported": ["public", "pairwise"],
        "id_token_signing_alg_values_supported": [*ALGORITHMS],
    }
