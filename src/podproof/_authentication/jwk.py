"""One public key of a JWK Set (RFC 7517): the key alone decides which algorithms it verifies, never a token."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

MIN_RSA_BITS = 2048
"""The shortest RSA key that verifies (RFC 7518 section 3.3)."""

MAX_RSA_BITS = 8192
"""The longest one: a verification takes 0.2 ms with it, and four times as long with each doubling."""

RSA_EXPONENTS = range(65537, 2**32, 2)
"""Public exponents that verify (FIPS 186-5 section A.1.1): with 1 everybody can sign, and small ones are fragile."""

MAX_KEY_ID = 256
"""The longest `kid`, in characters. Kubernetes' have 43."""

# A coordinate or modulus in base64url, no longer than that of the longest RSA key.
_NUMBER = re.compile(rf"[\w-]{{1,{-(-MAX_RSA_BITS // 6)}}}", re.ASCII)

_ALGORITHMS: Mapping[str, Algorithm] = get_default_algorithms()


class UnusableKey(ValueError):
    """A JWK that verifies nothing. `str()` says why, without its values."""


class _KeyType(NamedTuple):
    """A type of keys (RFC 7518 section 6, RFC 8037): its `kty` and `crv`, its public members, what it verifies."""

    kty: str
    curve: str | None
    members: tuple[str, ...]
    algorithms: tuple[str, ...]
    load: Callable[[dict[str, Any]], Any]


_KEY_TYPES = (
    _KeyType("RSA", None, ("n", "e"), ("RS256", "RS384", "RS512"), RSAAlgorithm.from_jwk),
    _KeyType("EC", "P-256", ("x", "y"), ("ES256",), ECAlgorithm.from_jwk),
    _KeyType("EC", "P-384", ("x", "y"), ("ES384",), ECAlgorithm.from_jwk),
    _KeyType("EC", "P-521", ("x", "y"), ("ES512",), ECAlgorithm.from_jwk),
    _KeyType("OKP", "Ed25519", ("x",), ("EdDSA",), OKPAlgorithm.from_jwk),
)
_KINDS = {(one.kty, one.curve): one for one in _KEY_TYPES}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key: its `kid`, and the algorithms that it verifies."""

    key_id: str
    algorithms: tuple[str, ...]
    public_key: Any = field(repr=False)

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Return True if a signature is this key's, by an algorithm that is one of `algorithms`."""
        return algorithm in self.algorithms and _ALGORITHMS[algorithm].verify(signed, self.public_key, signature)


def parse_jwk(jwk: object) -> SigningKey:
    """Return the key of a JWK that verifies signatures (RFC 7517 section 4).

    Raises UnusableKey for every other one: symmetric, private, of another use, type or curve, too short, malformed.
    """
    if not isinstance(jwk, dict):
        raise UnusableKey("it is not a JSON object")
    key_id = jwk.get("kid")
    if not isinstance(key_id, str) or not 1 <= len(key_id) <= MAX_KEY_ID:
        raise UnusableKey("it has no kid, which tokens would name it by")
    return parse_public_key(jwk, key_id)


def parse_public_key(jwk: Mapping[str, Any], key_id: str = "") -> SigningKey:
    """Return the key of a JWK, whatever its `kid` is. Raises UnusableKey as `parse_jwk` does."""
    kty, curve = jwk.get("kty"), jwk.get("crv")
    kind = _KINDS.get((kty, curve)) if isinstance(kty, str) and isinstance(curve, str | None) else None
    if kind is None:
        raise UnusableKey("it is not an RSA, P-256, P-384, P-521 or Ed25519 key")
    if "d" in jwk:
        raise UnusableKey("it is a private key, which must not be published")
    return SigningKey(key_id, _algorithms(jwk, kind), _load(jwk, kind))


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a JWK in base64url (RFC 7638, RFC 8037 section 2).

    `jwk` is one that `parse_public_key` takes: the thumbprint is that of its members as they are spelled.
    """
    kind = _KINDS[jwk["kty"], jwk.get("crv")]
    members = {name: jwk[name] for name in ("kty", *(("crv",) if kind.curve else ()), *kind.members)}
    digest = sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _algorithms(jwk: Mapping[str, Any], kind: _KeyType) -> tuple[str, ...]:
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("its use or key_ops is not the verification of signatures")
    if "alg" not in jwk:
        return kind.algorithms
    if jwk["alg"] not in kind.algorithms:
        raise UnusableKey("its alg is not one of its type")
    return (jwk["alg"],)


def _load(jwk: Mapping[str, Any], kind: _KeyType) -> Any:
    numbers = {name: jwk.get(name) for name in kind.members}
    if not all(isinstance(value, str) and _NUMBER.fullmatch(value) for value in numbers.values()):
        raise UnusableKey("its numbers are not in base64url, or too long")
    try:
        key = kind.load({"kty": kind.kty, "crv": kind.curve, **numbers})
    except (ValueError, PyJWTError, UnsupportedAlgorithm):
        raise UnusableKey("its numbers are not those of a key") from None
    if isinstance(key, RSAPublicKey):
        public = key.public_numbers()
        if key.key_size < MIN_RSA_BITS or public.n % 2 == 0:
            raise UnusableKey(f"its modulus has less than {MIN_RSA_BITS} bits, or is even")
        if public.e not in RSA_EXPONENTS:
            raise UnusableKey("its exponent is not an odd number from 65537 to 4294967295")
    return key
