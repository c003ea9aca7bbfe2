"""A private key that signs tokens, and its public half as it is published."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from podproof._authentication.jwk import thumbprint


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A private key that signs tokens; `key_id` is its RFC 7638 thumbprint, `jwk` its public half."""

    key_id: str
    algorithm: str
    private_key: Any = field(repr=False)
    public_key: Any = field(repr=False)
    jwk: Mapping[str, str]

    def derive_secret(self, purpose: str) -> bytes:
        """Return 32 bytes that nobody can compute without the private key, for a purpose of their own (RFC 5869)."""
        if isinstance(self.private_key, Ed25519PrivateKey):
            private = self.private_key.private_bytes_raw()
        else:
            private = self.private_key.private_numbers().private_value.to_bytes(32)
        return HKDF(SHA256(), 32, salt=None, info=f"podproof {purpose}".encode()).derive(private)


def parse_issuer_key(pem: bytes) -> IssuerKey:
    """Return the key of a PEM file. Raises ValueError for anything but one private P-256 or Ed25519 key."""
    try:
        private_key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        raise ValueError("expected a private key in PEM, without a password") from None
    public_key: Ed25519PublicKey | EllipticCurvePublicKey
    if isinstance(private_key, Ed25519PrivateKey):
        algorithm, public_key = "EdDSA", private_key.public_key()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": _encode(public_key.public_bytes_raw())}
    elif isinstance(private_key, EllipticCurvePrivateKey) and isinstance(private_key.curve, SECP256R1):
        algorithm, public_key = "ES256", private_key.public_key()
        point = public_key.public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "x": _encode(point.x.to_bytes(32)), "y": _encode(point.y.to_bytes(32))}
    else:
        raise ValueError("expected a P-256 or an Ed25519 key")  # noqa: TRY004  as for every other file
    key_id = thumbprint(jwk)
    return IssuerKey(key_id, algorithm, private_key, public_key, {**jwk, "use": "sig", "alg": algorithm, "kid": key_id})


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
