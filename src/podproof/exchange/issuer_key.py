"""A private key that signs tokens, and its public half as it is published."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

_REQUIRED = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""The members of a JWK that its thumbprint is made of (RFC 7638 section 3.2, RFC 8037 section 2)."""


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A private key that signs tokens; `key_id` is its RFC 7638 thumbprint, `jwk` its public half."""

    key_id: str
    algorithm: str
    private_key: Any = field(repr=False)
    jwk: Mapping[str, str]


def parse_issuer_key(pem: bytes) -> IssuerKey:
    """Return the key of a PEM file. Raises ValueError for anything but one private P-256 or Ed25519 key."""
    try:
        private_key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        raise ValueError("expected a private key in PEM, without a password") from None
    jwk: dict[str, Any]
    if isinstance(private_key, Ed25519PrivateKey):
        algorithm, jwk = "EdDSA", OKPAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    elif isinstance(private_key, EllipticCurvePrivateKey) and isinstance(private_key.curve, SECP256R1):
        algorithm, jwk = "ES256", ECAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    else:
        raise ValueError("expected a P-256 or an Ed25519 key")
    public = {name: jwk[name] for name in _REQUIRED[jwk["kty"]]}
    key_id = thumbprint(public)
    return IssuerKey(key_id, algorithm, private_key, {**public, "use": "sig", "alg": algorithm, "kid": key_id})


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the RFC 7638 thumbprint of an elliptic curve's public key, by SHA-256 and in base64url.

    Raises KeyError for another type of key, or one that lacks a member.
    """
    members = {name: jwk[name] for name in _REQUIRED[jwk["kty"]]}
    digest = sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
