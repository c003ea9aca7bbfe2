"""Service-account tokens: signed like the API server's, and parsed as leniently as it does."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


@functools.cache
def signing_key() -> rsa.RSAPrivateKey:
    """Return the signing key that all emulated clusters of this process share: generating one takes 0.1 s."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def foreign_key() -> rsa.RSAPrivateKey:
    """Return a key that no emulated cluster trusts."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def encode(data: bytes) -> str:
    """Encode as base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(segment: str) -> bytes:
    """Decode base64url as Go's RawURLEncoding does: line ends skipped, spare bits ignored, padding refused.

    Raises ValueError for anything else.
    """
    segment = segment.replace("\r", "").replace("\n", "")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", segment):
        raise ValueError("not base64url")
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error


def key_id(key: rsa.RSAPublicKey) -> str:
    """Return the `kid` the API server derives from a public key: the SHA-256 of its DER form."""
    return encode(hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest())


def jwk(key: rsa.RSAPublicKey) -> dict[str, str]:
    """Return a public key as the API server lists it under `/openid/v1/jwks`."""
    numbers = key.public_numbers()
    return {
        "use": "sig",
        "kty": "RSA",
        "kid": key_id(key),
        "alg": "RS256",
        "n": encode(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
        "e": encode(numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8)),
    }


def sign(claims: Mapping[str, Any], key: rsa.RSAPrivateKey) -> str:
    """Return the claims as a compact RS256 JWT whose header holds `alg` and `kid` alone."""
    return jwt.encode(dict(claims), key, algorithm="RS256", headers={"typ": None, "kid": key_id(key.public_key())})


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A parsed token whose signature is not verified yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    def is_signed_by(self, key: rsa.RSAPublicKey) -> bool:
        """Return True if the signature is this key's and the header names RS256."""
        if self.header.get("alg") != "RS256":
            return False
        try:
            key.verify(self.signature, self.signed, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


def issuer(token: str) -> object:
    """Return the `iss` claim of a token, or None: the API server reads it before everything else."""
    segments = token.split(".")
    if len(segments) != 3:
        return None
    try:
        return _object(segments[1]).get("iss")
    except ValueError:
        return None


def parse(token: str) -> UnverifiedToken:
    """Return a compact JWT's parts. Raises ValueError if it is malformed."""
    # go-jose drops all white space, and signs over the segments encoded anew: what decodes alike is the same token.
    header, payload, signature = re.sub(r"\s", "", token).split(".")
    signed = f"{encode(decode(header))}.{encode(decode(payload))}".encode()
    return UnverifiedToken(_object(header), _object(payload), signed, decode(signature))


def _object(segment: str) -> dict[str, Any]:
    try:
        content = json.loads(decode(segment))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - callers expect ValueError for every malformed token
    return content
