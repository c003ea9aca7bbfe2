"""Attacks on the verification of JSON Web Tokens by public keys, in the spirit of Project Wycheproof, by kind.

Each attack is a token, and what has to come of it: an error, or None where the token has to be reviewed.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from podproof._authentication.claims import MAX_TOKEN
from podproof._authentication.jws import MAX_BRACKETS
from podproof.errors import Expired, InvalidToken, MalformedToken, SignatureInvalid, WrongAudience
from tests.security.hostile_tokens import odd_bytes, other_spellings
from tests.security.json_mutations import Duplicated, Raw, render
from tests.support.fake_api import ALICE, NOW, segment
from tests.support.signed_tokens import (
    ALGORITHMS,
    HASHES,
    compact,
    jwk_of,
    make_key,
    public_jwk,
    rsa_jwk,
    sign,
    signed_token,
)

Expected = type[InvalidToken] | None
Vectors = Iterator[tuple[Expected, str]]
Sign = Callable[[bytes], bytes]


class Attack(NamedTuple):
    """A token, and the error that denies it; None if it has to be reviewed."""

    kind: str
    expected: Expected
    token: str


KEY_TYPES = ("RS256", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms, one for each key: RSA keys verify several."""

CLAIMS: dict[str, Any] = ALICE | {
    "jti": "8a7c51c8-4f4e-4b0c-9f1c-9a2f5f3f1d11",
    "kubernetes.io": {
        "namespace": "default",
        "node": {"name": "node1", "uid": "node-uid"},
        "pod": {"name": "alice-pod", "uid": "pod-uid"},
        "serviceaccount": {"name": "alice", "uid": "account-uid"},
    },
}

ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "ES512": int("1" + "F" * 65 + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16),
}
"""The orders of the curves P-256, P-384 and P-521 (SEC 2 sections 2.4.2, 2.5.1, 2.6.1)."""

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
"""RFC 8032 section 5.1."""

SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""What stands before a SHA-256 hash in a PKCS #1 v1.5 signature (RFC 8017 section 9.2)."""

PUBLIC_JWKS = {"keys": [jwk_of(algorithm) for algorithm in KEY_TYPES]}
"""The keys that the tokens are verified by; each has its algorithm as its `kid`."""

WEAK_KEYS = {
    "exponent-1": rsa_jwk(1),
    "exponent-3": rsa_jwk(3),
    "short": rsa_jwk(bits=1024),
    "huge-exponent": rsa_jwk((1 << 64) + 1),
    "secret": {"kty": "oct", "k": segment(b"secret")},
    "encryption": jwk_of("RS256", use="enc"),
}
"""Keys that must not verify. Their `kid` is their name here."""


def with_signature(algorithm: str, make: Sign, **header: object) -> str:
    """Return a token whose signature is made of what is signed."""
    signed = compact({"alg": algorithm, "kid": algorithm, **header}, CLAIMS)
    return f"{signed}.{segment(make(signed.encode()))}"


def genuine(algorithm: str = "ES256", **header: object) -> str:
    """Return a token that is signed with the key that it names, with other members in its header."""
    return signed_token(algorithm, header=header, claims=CLAIMS)


def with_payload(claims: object) -> str:
    """Return a token with these claims, signed with the key that it names."""
    return signed_token(claims=render(claims).encode())


def changed(path: Sequence[str], value: object) -> Mapping[str, Any]:
    """Return the claims with another value in one place."""
    claims = copy.deepcopy(CLAIMS)
    parent = claims
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    return claims


def without(path: Sequence[str]) -> Mapping[str, Any]:
    """Return the claims without one of them."""
    claims: Any = changed(path, None)
    parent = claims
    for name in path[:-1]:
        parent = parent[name]
    del parent[path[-1]]
    return cast("Mapping[str, Any]", claims)


# The algorithm and the key


def no_algorithm() -> Vectors:
    """Tokens that say that they are not signed (RFC 7515 section 8)."""
    for spelling in ("none", "None", "NONE", "nOnE", "none ", " none", "none\0", "\u0274one", "null", "false", "0"):
        yield SignatureInvalid, genuine(alg=spelling)
        yield SignatureInvalid, with_signature("RS256", lambda _: b"\0", alg=spelling)
        yield MalformedToken, compact({"alg": spelling, "kid": "RS256"}, CLAIMS) + "."
    others: Sequence[object] = ("", None, 0, False, [], ["ES256"], {})
    for other in others:
        yield MalformedToken, signed_token(header=json.dumps({"alg": other, "kid": "ES256"}).encode(), claims=CLAIMS)


def public_key_as_secret() -> Vectors:
    """HMACs with what everybody knows of the public key (CVE-2015-9235)."""
    for kid in KEY_TYPES:
        public = make_key(kid).public_key()
        secrets = [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(jwk_of(kid)).encode(),
            str(jwk_of(kid).get("n", jwk_of(kid).get("x"))).encode(),
            b"",
        ]
        for bits in ("256", "384", "512"):
            for secret in secrets:
                yield SignatureInvalid, with_signature(kid, _hmac(secret, f"sha{bits}"), alg=f"HS{bits}")


def _hmac(secret: bytes, hashed: str) -> Sign:
    return lambda signed: hmac.digest(secret, signed, hashed)


def algorithm_of_another_key() -> Vectors:
    """Genuine signatures under the name of another algorithm."""
    others = ("PS256", "PS384", "PS512", "ES256K", "ES521", "Ed25519", "Ed448", "RSA-OAEP", "dir", "A128KW", "rs256")
    for kid in KEY_TYPES:
        for algorithm in (*ALGORITHMS, *others):
            if algorithm != kid:
                yield SignatureInvalid, genuine(kid, alg=algorithm)


def padding_of_another_algorithm() -> Vectors:
    """Signatures by the right key, with the padding of PS256, or with another hash."""
    for bits, hashed in HASHES.items():
        for algorithm in ("RS", "PS"):
            yield SignatureInvalid, with_signature("RS256", _pss(hashed()), alg=f"{algorithm}{bits}")
        for curve in ORDERS:
            if not curve.endswith(bits):
                yield SignatureInvalid, with_signature(curve, _ecdsa(curve, hashed()))


def _pss(hashed: HashAlgorithm) -> Sign:
    key = cast("rsa.RSAPrivateKey", make_key("RS256"))
    return lambda signed: key.sign(signed, padding.PSS(padding.MGF1(hashed), hashed.digest_size), hashed)


def _ecdsa(algorithm: str, hashed: HashAlgorithm) -> Sign:
    key = cast("ec.EllipticCurvePrivateKey", make_key(algorithm))
    return lambda signed: raw(key, *decode_dss_signature(key.sign(signed, ec.ECDSA(hashed))))


def raw(key: ec.EllipticCurvePrivateKey, r: int, s: int) -> bytes:
    """Return a signature in the form of RFC 7518 section 3.4."""
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size) + s.to_bytes(size)


def key_of_another() -> Vectors:
    """Signatures by a key of the same type, and by the right key of something else."""
    for algorithm in ALGORITHMS:
        kid = "RS256" if algorithm.startswith("RS") else algorithm
        mallory = make_key(algorithm, "mallory")
        yield SignatureInvalid, signed_token(algorithm, mallory, header={"kid": kid}, claims=CLAIMS)
        head, payload, signature = genuine(algorithm, kid=kid).split(".")
        other = signed_token(algorithm, header={"kid": kid}, claims=changed(["sub"], "system:serviceaccount:a:b"))
        yield SignatureInvalid, f"{head}.{other.split('.')[1]}.{signature}"
        spaced = segment(json.dumps({"alg": algorithm, "kid": kid}).encode() + b" ")
        yield SignatureInvalid, f"{spaced}.{payload}.{signature}"


def key_in_the_header() -> Vectors:
    """Headers that bring the attacker's key, or say where it is (CVE-2018-0114)."""
    for algorithm in ("RS256", "ES256", "EdDSA"):
        mallory = make_key(algorithm, "mallory")
        for member in (
            {"jwk": public_jwk(mallory, kid=algorithm)},
            {"jku": "http://127.0.0.1:1/jwks"},
            {"x5u": "http://127.0.0.1:1/chain.pem"},
            {"x5c": ["MIIB"]},
            {"x5t": "AAAA", "x5t#S256": "AAAA"},
        ):
            yield SignatureInvalid, signed_token(algorithm, mallory, header=member, claims=CLAIMS)
            yield None, signed_token(algorithm, mallory, header=member | {"kid": "mallory"}, claims=CLAIMS)
            yield None, signed_token(algorithm, mallory, header=member | {"kid": None}, claims=CLAIMS)


def key_id() -> Vectors:
    """Key IDs that a lookup in files, tables or URLs would take for something else."""
    for kid in (
        "../../../../dev/null",
        "/dev/null",
        "/proc/self/environ",
        "file:///etc/passwd",
        "http://127.0.0.1:1/key",
        "' OR '1'='1",
        "x' UNION SELECT 'secret' --",
        "$(id)",
        "; ls",
        "${jndi:ldap://127.0.0.1:1/a}",
        "{{7*7}}",
        "\0",
        "ES256\0",
        "ES256 ",
        " ES256",
        "es256",
        "ES25",
        "ES2566",
        "\ud800",
        "\u202eES256",
        "*",
        "__class__",
        "x" * 4000,
    ):
        yield None, genuine(kid=kid)
    for other in ("", None, 0, 1.5, True, [], ["ES256"], {}, {"ES256": "ES256"}):
        header = json.dumps({"alg": "ES256", "kid": other}).encode()
        yield MalformedToken, signed_token(header=header, claims=CLAIMS)


def weak_key() -> Vectors:
    """Tokens that name a key which is in the set and must not verify: the signature for exponent 1 is no secret."""
    for kid in WEAK_KEYS:
        yield None, with_signature("RS256", pkcs1, kid=kid)
        yield None, with_signature("HS256", _hmac(b"secret", "sha256"), kid=kid)


# The signature


def ecdsa_numbers() -> Vectors:
    """ECDSA signatures with numbers out of range (CVE-2022-21449), or in another encoding."""
    for algorithm, order in ORDERS.items():
        key = cast("ec.EllipticCurvePrivateKey", make_key(algorithm))
        size = (key.curve.key_size + 7) // 8
        most = (1 << (8 * size)) - 1
        signed = compact({"alg": algorithm, "kid": algorithm}, CLAIMS)
        good = sign(algorithm, key, signed.encode())
        r, s = int.from_bytes(good[:size]), int.from_bytes(good[size:])
        numbers = [(one, other) for one in (0, 1, order, most) for other in (0, 1, order, most)]
        numbers += [(r, 0), (0, s), (r, order), (order, s), (r, most), (most, s), (s, r), (order - 1, order - 1)]
        numbers += [(r + order, s), (r, s + order)]
        signatures = [raw(key, *pair) for pair in numbers if max(pair) <= most]
        signatures += [*_resized(good), good[:size], b"\0" + good[:size] + b"\0" + good[size:]]
        signatures += [encode_dss_signature(r, s), encode_dss_signature(0, 0)]
        signatures += [r.to_bytes(size, "little") + s.to_bytes(size, "little")]
        for signature in signatures:
            yield SignatureInvalid, f"{signed}.{segment(signature)}"


def _resized(signature: bytes) -> list[bytes]:
    """Return a signature cut off, extended, doubled and reversed."""
    cut = [signature[:-1], signature[1:], b"\0"]
    return [*cut, signature + b"\0", b"\0" + signature, signature + signature, signature[::-1]]


def pkcs1(signed: bytes, size: int = 256) -> bytes:
    """Return the PKCS #1 v1.5 encoding of a SHA-256 hash (RFC 8017 section 9.2)."""
    end = SHA256_INFO + hashlib.sha256(signed).digest()
    return b"\0\1" + b"\xff" * (size - len(end) - 3) + b"\0" + end


def rsa_encodings() -> Vectors:
    """What the right key has signed in another encoding than PKCS #1 v1.5's one (Bleichenbacher 2006), and numbers."""
    numbers = cast("rsa.RSAPrivateKey", make_key("RS256")).private_numbers()
    modulus, private = numbers.public_numbers.n, numbers.d

    def power(encoded: bytes) -> bytes:
        return pow(int.from_bytes(encoded), private, modulus).to_bytes(256)

    signed = compact({"alg": "RS256", "kid": "RS256"}, CLAIMS)
    good = pkcs1(signed.encode())
    digest = good[-32:]
    encodings = [
        b"\0\2" + good[2:],
        b"\0\0" + good[2:],
        b"\1" + good[1:],
        b"\0\1\xfe" + good[3:],
        b"\0\1" + b"\xff" * 8 + b"\0" + SHA256_INFO + digest + b"\0" * 194,
        b"\0\1" + b"\xff" * 202 + b"\0" + digest + SHA256_INFO,
        b"\0\1" + b"\xff" * 221 + b"\0" + digest,
        b"\0\1" + b"\xff" * 204 + b"\0" + bytes.fromhex("302f300b0609608648016503040201") + b"\4\x20" + digest,
        b"\0\1" + b"\xff" * 200 + b"\0" + bytes.fromhex("3033300d0609608648016503040201050004") + b"\x22\0\0" + digest,
        b"\0\1" + b"\xff" * 202 + b"\0" + SHA256_INFO.replace(b"\x04\x02\x01", b"\x04\x02\x02") + digest,
        b"\0" * 224 + digest,
        b"\xff" * 224 + digest,
    ]
    correct = int.from_bytes(sign("RS256", make_key("RS256"), signed.encode()))
    assert power(good) == correct.to_bytes(256)  # so that each of the others is wrong by its encoding alone
    assert {len(encoded) for encoded in encodings} == {256}
    signatures = [power(encoded) for encoded in encodings]
    signatures += [number.to_bytes(256) for number in (0, 1, 2, modulus - 1, modulus, modulus - correct)]
    signatures += [(correct + modulus).to_bytes(257), good]
    signatures += [*_resized(power(good)), b"\xff" * 256]
    for signature in signatures:
        yield SignatureInvalid, f"{signed}.{segment(signature)}"


def eddsa_numbers() -> Vectors:
    """Ed25519 signatures with numbers out of range (RFC 8032 section 5.1.7), or with a point of small order."""
    signed = compact({"alg": "EdDSA", "kid": "EdDSA"}, CLAIMS)
    good = sign("EdDSA", make_key("EdDSA"), signed.encode())
    point, scalar = good[:32], int.from_bytes(good[32:], "little")
    multiples = [scalar + times * ED25519_ORDER for times in range(1, 16)]
    signatures = [point + number.to_bytes(32, "little") for number in multiples if number < 1 << 256]
    signatures += [point + number.to_bytes(32, "little") for number in (0, 1, ED25519_ORDER, (1 << 256) - 1)]
    small_points = (b"\0" * 32, b"\1" + b"\0" * 31, b"\xff" * 32)
    signatures += [small + rest for small in small_points for rest in (good[32:], b"\0" * 32)]
    signatures += [*_resized(good), good[32:] + point, point]
    for signature in signatures:
        yield SignatureInvalid, f"{signed}.{segment(signature)}"


# The form


def duplicated_members() -> Vectors:
    """Members that a header or a payload has twice: which one counts differs from parser to parser."""
    head = {"alg": "ES256", "kid": "ES256"}
    for name, other in (("alg", "none"), ("kid", "mallory")):
        for pair in (Duplicated(head[name], other), Duplicated(other, head[name]), Duplicated(head[name], head[name])):
            yield MalformedToken, signed_token(header=render(head | {name: pair}).encode(), claims=CLAIMS)
    escaped = rb'{"\u0061lg":"none","alg":"ES256","kid":"ES256"}'
    yield MalformedToken, signed_token(header=escaped, claims=CLAIMS)
    for name, value in CLAIMS.items():
        for pair in (Duplicated(value, value), Duplicated(value, "x"), Duplicated("x", value)):
            yield MalformedToken, with_payload(CLAIMS | {name: pair})
    for path in PRIVATE_PATHS:
        yield MalformedToken, with_payload(changed(path, Duplicated("x", "y")))


def header_extensions() -> Vectors:
    """Extensions that a verifier has to know or to reject (RFC 7515 section 4.1.11, RFC 7797, RFC 7516)."""
    crit: Sequence[object] = ([], ["exp"], ["b64"], ["alg"], ["x", "x"], "exp", None, 0, True, {}, [None], [""])
    others: Sequence[Mapping[str, object]] = ({"b64": False}, {"b64": True}, {"zip": "DEF"}, {"enc": "A128GCM"})
    for extension in ({"b64": False, "crit": ["b64"]}, *({"crit": value} for value in crit), *others):
        header = json.dumps({"alg": "ES256", "kid": "ES256", **extension}).encode()
        yield MalformedToken, signed_token(header=header, claims=CLAIMS)


def nesting() -> Vectors:
    """Parts that are nested deep, or long."""
    for depth in (MAX_BRACKETS, 1000, 1500):
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            yield MalformedToken, with_payload(CLAIMS | {"more": Raw(text)})
            yield (
                MalformedToken,
                signed_token(header=f'{{"alg":"ES256","kid":"ES256","more":{text}}}'.encode(), claims=CLAIMS),
            )
    for part in (b"[" * 4000, b'{"a":' * 1000, b"9" * 4500, b'"' * 4000):
        yield MalformedToken, signed_token(claims=part)
        yield MalformedToken, signed_token(header=part, claims=CLAIMS)
    yield MalformedToken, genuine(more="x" * MAX_TOKEN)
    yield MalformedToken, with_payload(CLAIMS | {"more": "x" * MAX_TOKEN})


def spellings() -> Vectors:
    """Other spellings of a valid token: what decodes alike would be further keys in a cache."""
    for algorithm in ("ES256", "RS256"):
        token = genuine(algorithm)
        for other in other_spellings(token.encode()):
            if (text := other.decode("latin-1")) != token:
                yield InvalidToken, text


def serializations() -> Vectors:
    """Other serializations of JOSE: encrypted (RFC 7516), JSON (RFC 7515 section 7.2), detached, nested."""
    token = genuine()
    head, payload, signature = token.split(".")
    yield MalformedToken, f"{token}.{signature}.{signature}"
    yield MalformedToken, f"{head}....{signature}"
    yield MalformedToken, f"{head}..{signature}"
    yield MalformedToken, json.dumps({"protected": head, "payload": payload, "signature": signature})
    yield MalformedToken, json.dumps({"payload": payload, "signatures": [{"protected": head, "signature": signature}]})
    yield MalformedToken, signed_token(header={"cty": "JWT"}, claims=token.encode())
    yield MalformedToken, signed_token(header={"cty": "JWT"}, claims=json.dumps(token).encode())
    for parts in (["", payload, signature], [head, "", signature], [head, payload, ""], ["", "", ""], [head, payload]):
        yield MalformedToken, ".".join(parts)


def encodings() -> Vectors:
    """Signed payloads in other encodings than UTF-8, or that are no JSON object."""
    payload = json.dumps(CLAIMS).encode()
    for other in odd_bytes(payload):
        if other.strip() != payload:
            yield MalformedToken, signed_token(claims=other)
            yield MalformedToken, signed_token(header=other, claims=CLAIMS)


# The claims


PRIVATE_PATHS = [
    ("kubernetes.io", *path.split("."))
    for path in (
        "namespace",
        "node",
        "node.name",
        "node.uid",
        "pod",
        "pod.name",
        "pod.uid",
        "serviceaccount",
        "serviceaccount.name",
        "serviceaccount.uid",
    )
]
TEXT_PATHS = [("iss",), ("sub",), ("jti",), *PRIVATE_PATHS]


def types() -> Vectors:
    """Claims of another type."""
    for path in (*TEXT_PATHS, ("kubernetes.io",), ("aud",), ("exp",), ("nbf",), ("iat",)):
        for value in (None, True, False, "", [], {}, [None], ["x"], {"x": "y"}, -1):
            yield InvalidToken, with_payload(changed(path, value))
    for path in TEXT_PATHS:
        for number in (0, 1, 1.5):
            yield InvalidToken, with_payload(changed(path, number))


def missing() -> Vectors:
    """Tokens without a claim that there has to be."""
    optional = {("jti",), ("kubernetes.io", "node"), ("kubernetes.io", "node", "uid")}
    for path in (*TEXT_PATHS, ("kubernetes.io",), ("aud",), ("exp",), ("nbf",), ("iat",)):
        if path not in optional:
            yield InvalidToken, with_payload(without(path))


def times() -> Vectors:
    """Times that are over, to come, or none at all."""
    numbers = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e15", "1" * 400, "1" * 5000, "-1", "-0.5", "0x10")
    for name in ("exp", "nbf", "iat"):
        for number in (*numbers, f'"{NOW:.0f}"', '"2100-01-01T00:00:00Z"', f"[{NOW:.0f}]"):
            yield MalformedToken, with_payload(CLAIMS | {name: Raw(number)})
    for past in (0, 0.0, 1, NOW - 60.5, NOW - 3600, NOW - 1e9):
        yield Expired, with_payload(CLAIMS | {"exp": past})
    for future in (NOW + 60.5, NOW + 3600, NOW + 1e9):
        yield Expired, with_payload(CLAIMS | {"nbf": future})
        yield Expired, with_payload(CLAIMS | {"iat": future})


def audiences() -> Vectors:
    """Audiences that are not ours, or only nearly."""
    near = ("bo", "bobby", "BOB", "Bob", "bob ", " bob", "bob\0", "eve bob", "eve,bob", "*", "b*", "\u0432ob", "bob/")
    for other in near:
        yield WrongAudience, with_payload(CLAIMS | {"aud": other})
        yield WrongAudience, with_payload(CLAIMS | {"aud": ["eve", other]})
    types: Sequence[object] = ({"bob": "bob"}, [["bob"]], [{"bob": "bob"}], [{}], 7, "['bob']", '["bob"]')
    for wrong in types:
        yield WrongAudience, with_payload(CLAIMS | {"aud": wrong})
    for mixed in (["bob", None], ["bob", 7], [True, "bob"], ["bob", ["bob"]], ["bob", {}]):
        yield MalformedToken, with_payload(CLAIMS | {"aud": mixed})


def issuers() -> Vectors:
    """Issuers whose keys these are not, or only nearly."""
    issuer = str(CLAIMS["iss"])
    near = (issuer + "/", issuer.upper(), issuer + "\0", " " + issuer, issuer + "#", issuer[:-1])
    for other in ("https://eve", "*", *near):
        yield None, with_payload(CLAIMS | {"iss": other})


def subjects() -> Vectors:
    """Subjects that are not the service account of the claims, and names that no object has."""
    for sub in (
        "system:serviceaccount:kube-system:alice",
        "system:serviceaccount:default:bob",
        "system:serviceaccount:default:alice:",
        "system:serviceaccount:default:alice ",
        "system:serviceaccount:default:Alice",
        "system:serviceaccount:default",
        "system:serviceaccount::alice",
        "system:admin",
        "system:anonymous",
        "system:node:node1",
        "alice",
        "default/alice",
    ):
        yield MalformedToken, with_payload(CLAIMS | {"sub": sub})
    for namespace, name in (
        ("default:alice", "x"),
        ("default", "x:alice"),
        ("", "default:alice"),
        ("Default", "alice"),
        ("default", "Alice"),
        ("default", "../alice"),
        ("a.b", "alice"),
        ("a" * 64, "alice"),
        ("default", "a" * 254),
        ("default\n", "alice"),
        ("default", "alice\0"),
        ("default", "al\ud800ice"),
    ):
        private = CLAIMS["kubernetes.io"] | {"namespace": namespace, "serviceaccount": {"name": name, "uid": "uid"}}
        claims = CLAIMS | {"kubernetes.io": private, "sub": f"system:serviceaccount:{namespace}:{name}"}
        yield MalformedToken, with_payload(claims)


def pods() -> Vectors:
    """Pods with names and UIDs that no pod has, and tokens bound to something else."""
    paths = ("../../secrets/a", "a/b", "a?b", "a#b", "a%2fb")
    for name in (*paths, "-a", "a-", "a..b", "A", "a\n", "a\0", "a" * 254, "a b"):
        yield InvalidToken, with_payload(changed(("kubernetes.io", "pod", "name"), name))
    for uid in ("a b", "a\n", "a/b", "a" * 129, "\ud800", "a\0"):
        yield InvalidToken, with_payload(changed(("kubernetes.io", "pod", "uid"), uid))
    for kind in ("secret", "Pod", "pods"):
        private = {name: value for name, value in CLAIMS["kubernetes.io"].items() if name != "pod"}
        yield (
            InvalidToken,
            with_payload(CLAIMS | {"kubernetes.io": private | {kind: {"name": "alice-pod", "uid": "pod-uid"}}}),
        )
    moved = {name: value for name, value in CLAIMS.items() if name != "kubernetes.io"} | CLAIMS["kubernetes.io"]
    yield InvalidToken, with_payload(moved)


KINDS: tuple[Callable[[], Vectors], ...] = (
    no_algorithm,
    public_key_as_secret,
    algorithm_of_another_key,
    padding_of_another_algorithm,
    key_of_another,
    key_in_the_header,
    key_id,
    weak_key,
    ecdsa_numbers,
    rsa_encodings,
    eddsa_numbers,
    duplicated_members,
    header_extensions,
    nesting,
    spellings,
    serializations,
    encodings,
    types,
    missing,
    times,
    audiences,
    issuers,
    subjects,
    pods,
)


def attacks(kind: Callable[[], Vectors]) -> list[Attack]:
    """Return all attacks of a kind."""
    return [Attack(kind.__name__, expected, token) for expected, token in kind()]
