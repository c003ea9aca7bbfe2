"""Keys of each type that verifies tokens, their JWKs, and tokens that are signed with them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from tests.support.fake_api import ALICE, segment

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

HASHES: Mapping[str, type[HashAlgorithm]] = {"256": SHA256, "384": SHA384, "512": SHA512}
CURVES: Mapping[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")


@functools.cache
def make_key(algorithm: str, name: str = "") -> PrivateKey:
    """Return the key of this name that signs by an algorithm; an RSA key of one name signs by all RSA algorithms."""
    if algorithm.startswith("RS"):
        return _rsa_key(name)
    return (
        ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else ec.generate_private_key(CURVES[algorithm]())
    )


@functools.cache
def _rsa_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(key: PrivateKey, **members: object) -> dict[str, Any]:
    """Return the JWK of a key's public half (RFC 7518 section 6, RFC 8037) with these members; None removes one."""
    jwk: dict[str, object]
    match key:
        case rsa.RSAPrivateKey():
            rsa_numbers = key.public_key().public_numbers()
            jwk = {"kty": "RSA", "n": _number(rsa_numbers.n), "e": _number(rsa_numbers.e)}
        case ec.EllipticCurvePrivateKey():
            point, bits = key.public_key().public_numbers(), key.curve.key_size
            jwk = {"kty": "EC", "crv": f"P-{bits}", "x": _number(point.x, bits), "y": _number(point.y, bits)}
        case _:
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": segment(key.public_key().public_bytes_raw())}
    return {name: value for name, value in (jwk | {"use": "sig"} | members).items() if value is not None}


def _number(number: int, bits: int | None = None) -> str:
    """Return a number in base64url, in as many bytes as it needs or as these bits do."""
    return segment(number.to_bytes(((bits or number.bit_length()) + 7) // 8))


def sign(algorithm: str, key: PrivateKey, signed: bytes) -> bytes:
    """Return the signature of RFC 7518 section 3 and RFC 8037."""
    match key:
        case rsa.RSAPrivateKey():
            return key.sign(signed, padding.PKCS1v15(), HASHES[algorithm[2:]]())
        case ec.EllipticCurvePrivateKey():
            r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(HASHES[algorithm[2:]]())))
            size = (key.curve.key_size + 7) // 8
            return r.to_bytes(size) + s.to_bytes(size)
        case _:
            return key.sign(signed)


def compact(header: object, claims: object) -> str:
    """Return the signed part of a token. Bytes are taken as they are."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    return ".".join(map(segment, parts))


def signed_token(
    algorithm: str = "ES256",
    key: PrivateKey | None = None,
    *,
    header: Mapping[str, object] | bytes | None = None,
    claims: Mapping[str, object] | bytes = ALICE,
) -> str:
    """Return a token that is signed with a key, by default with the one of this algorithm, which has its name as kid.

    In the header, None removes a member.
    """
    if not isinstance(header, bytes):
        made = {"alg": algorithm, "kid": algorithm, **(header or {})}
        header = json.dumps({name: value for name, value in made.items() if value is not None}).encode()
    signed = compact(header, claims)
    return f"{signed}.{segment(sign(algorithm, key or make_key(algorithm), signed.encode()))}"


def jwks(*keys: Mapping[str, object]) -> dict[str, Any]:
    return {"keys": [*keys]}


def jwk_of(algorithm: str, key: PrivateKey | None = None, /, **members: object) -> dict[str, Any]:
    """Return the JWK of the key that `signed_token` uses for this algorithm."""
    return public_jwk(key or make_key(algorithm), **{"kid": algorithm, **members})


def rsa_jwk(exponent: int = 65537, bits: int = 2048, modulus: int | None = None) -> dict[str, Any]:
    """Return the JWK of these numbers, whose private key nobody has: by default of a modulus of so many bits."""
    return {"kty": "RSA", "kid": "a", "n": _number(modulus or (1 << (bits - 1)) + 1), "e": _number(exponent)}
