"""Which keys of a JWK Set verify signatures, and by which algorithms."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from podproof._authentication.jwk import MAX_KEY_ID, MAX_RSA_BITS, UnusableKey, parse_jwk
from tests.support.signed_tokens import (
    jwk_of,
    public_jwk,
    rsa_jwk,
)


@pytest.mark.parametrize(
    ("members", "algorithms"),
    [({}, ("RS256", "RS384", "RS512")), ({"alg": "RS384"}, ("RS384",)), ({"use": None, "key_ops": ["verify"]}, None)],
)
def test_a_key_alone_says_what_it_verifies(members: dict[str, object], algorithms: tuple[str, ...] | None) -> None:
    key = parse_jwk(jwk_of("RS256", **members))
    assert key.algorithms == (algorithms or ("RS256", "RS384", "RS512"))
    assert "public_key" not in repr(key)


@pytest.mark.parametrize("bits", [2048, 3072, MAX_RSA_BITS])
@pytest.mark.parametrize("exponent", [65537, 65539, (1 << 32) - 1])
def test_an_rsa_key_of_usual_numbers_verifies(bits: int, exponent: int) -> None:
    assert parse_jwk(rsa_jwk(exponent, bits)).key_id == "a"


UNUSABLE: list[tuple[str, Any]] = [
    ("not a JSON object", "key"),
    *(("has no kid", jwk_of("ES256", kid=kid)) for kid in (None, "", "a" * (MAX_KEY_ID + 1), 7)),
    *(("is not an RSA, P-256", jwk_of("ES256", kty=kty)) for kty in (None, ["EC"], "RSA", "OKP")),
    ("is not an RSA, P-256", {"kty": "oct", "kid": "a", "k": "AAAA"}),
    ("is not an RSA, P-256", public_jwk(ec.generate_private_key(ec.SECP256K1()), kid="a", crv="secp256k1")),
    ("is not an RSA, P-256", jwk_of("EdDSA", crv="Ed448")),
    ("private key", jwk_of("EdDSA", d="AAAA")),
    *(("use or key_ops", jwk_of("RS256", **use)) for use in ({"use": "enc"}, {"use": ["sig"]})),
    *(("use or key_ops", jwk_of("RS256", key_ops=operations)) for operations in (["sign"], "verify", [])),
    *(("its alg", jwk_of("RS256", alg=alg)) for alg in ("RSA-OAEP", "HS256", "PS256", "ES256", "none", ["RS256"], 7)),
    *(("not in base64url", jwk_of("ES256", y=y)) for y in (None, 7, "", jwk_of("ES256")["y"] + "=", "é")),
    *(("not in base64url", rsa_jwk(bits=bits)) for bits in (MAX_RSA_BITS + 1, 2 * MAX_RSA_BITS)),
    ("not those of a key", jwk_of("ES256", x=jwk_of("ES256")["y"])),
    ("not those of a key", jwk_of("ES256", crv="P-384")),
    ("not those of a key", jwk_of("EdDSA", x="AAAA")),
    ("not those of a key", rsa_jwk(1)),
    *(("modulus", rsa_jwk(bits=bits)) for bits in (1024, 2047)),
    ("modulus", rsa_jwk(modulus=1 << 2047)),
    *(("exponent", rsa_jwk(exponent)) for exponent in (3, 17, 65535, (1 << 32) + 1, (1 << 64) + 1)),
    ("not those of a key", rsa_jwk(65538)),
]


@pytest.mark.parametrize(("reason", "jwk"), UNUSABLE)
def test_a_key_that_cannot_or_must_not_verify_is_not_used(reason: str, jwk: object) -> None:
    with pytest.raises(UnusableKey, match=reason) as raised:
        parse_jwk(jwk)
    assert "AAAA" not in str(raised.value)
