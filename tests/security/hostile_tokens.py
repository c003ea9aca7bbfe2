"""Invalid tokens of every form: what an attacker or a bug can make from valid tokens and from nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import strategies as st

from podproof.testing._emulator.tokens import encode, foreign_key, jwk, key_id, parse, signing_key
from tests.security.json_mutations import Duplicated, Raw, every_change, mangled, render

Bytes = st.SearchStrategy[bytes]

_KEY, _FOREIGN = signing_key(), foreign_key()
_PUBLIC = _KEY.public_key()
_PUBLIC_VALUES = (
    _PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    _PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    json.dumps(jwk(_PUBLIC)).encode(),
    jwk(_PUBLIC)["n"].encode(),
    b"",
)
"""Keys for an HMAC that a verifier accepts if it takes a public key for a shared secret (CVE-2015-9235)."""

ALGORITHMS = ("RS256", "none", "None", "NONE", "nOnE", "", "HS256", "HS512", "RS512", "PS256", "ES256", "EdDSA", "dir")
KEY_IDS: tuple[object, ...] = (
    key_id(_PUBLIC),
    key_id(_FOREIGN.public_key()),
    "",
    None,
    0,
    ["x"],
    {},
    "../../../../dev/null",
    "/proc/self/environ",
    "' OR 1=1 --",
    "http://127.0.0.1:1/key",
    "\0",
    "\ud800",
    "x" * 5000,
)
KEYS_IN_HEADERS: tuple[Mapping[str, Any], ...] = (
    {},
    {"jwk": jwk(_FOREIGN.public_key())},
    {"jku": "http://127.0.0.1:1/jwks"},
    {"x5u": "http://127.0.0.1:1/chain"},
    {"x5c": ["AAAA"]},
    {"crit": ["exp"], "exp": 0},
    {"b64": False, "crit": ["b64"]},
    {"zip": "DEF"},
    {"typ": "at+jwt"},
    {"cty": "JWT"},
    {"p2c": 2**31, "p2s": "AAAA"},
)

Sign = Callable[[bytes], bytes]


def _rsa(key: rsa.RSAPrivateKey, pad: padding.AsymmetricPadding, size: SHA256 | SHA512) -> Sign:
    return lambda signed: key.sign(signed, pad, size)


def _hmac(secret: bytes) -> Sign:
    return lambda signed: hmac.new(secret, signed, hashlib.sha256).digest()


_PSS = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
GENUINE: Sign = _rsa(_KEY, padding.PKCS1v15(), SHA256())
SIGNATURES: tuple[Sign, ...] = (
    GENUINE,
    _rsa(_KEY, _PSS, SHA256()),
    _rsa(_KEY, padding.PKCS1v15(), SHA512()),
    _rsa(_FOREIGN, padding.PKCS1v15(), SHA256()),
    *map(_hmac, _PUBLIC_VALUES),
    lambda _: b"",
    lambda _: bytes(256),
    lambda _: b"\xff" * 256,
)


def make_token(header: bytes, payload: bytes, sign: Sign) -> bytes:
    """Return a token of these parts."""
    signed = f"{encode(header)}.{encode(payload)}".encode()
    return signed + b"." + encode(sign(signed)).encode()


def forge_under_the_known_key(token: str) -> str:
    """Return a token that names the cluster's key and is signed with another."""
    head, payload, _ = token.split(".")
    signed = f"{head}.{payload}"
    return f"{signed}.{encode(_rsa(_FOREIGN, padding.PKCS1v15(), SHA256())(signed.encode()))}"


def genuine_header() -> dict[str, Any]:
    return {"alg": "RS256", "kid": key_id(_PUBLIC)}


def headers() -> Bytes:
    """Draw JWT headers with another algorithm, with hostile key parameters, or that are no JSON object."""
    made = st.builds(
        lambda algorithm, kid, more: {"alg": algorithm, "kid": kid, **more},
        st.sampled_from(ALGORITHMS) | st.sampled_from([None, 0, [], {}, True]),
        st.sampled_from(KEY_IDS),
        st.sampled_from(KEYS_IN_HEADERS),
    )
    genuine = st.just(genuine_header())
    doubled = st.just({"alg": Duplicated("none", "RS256")}) | st.just({"alg": Duplicated("RS256", "none")})
    return (genuine | made | doubled | mangled(genuine_header())).map(_bytes) | st.binary(max_size=40)


def payloads(claims: Mapping[str, Any]) -> Bytes:
    """Draw payloads with other claims, with these claims in another encoding, or that are no JSON object."""
    return st.one_of(
        st.just(_bytes(claims)),
        mangled(dict(claims)).map(_bytes),
        st.sampled_from([*map(_bytes, odd_claims(claims))]),
        st.sampled_from([*odd_bytes(_bytes(claims))]),
        st.binary(max_size=100),
    )


def odd_claims(claims: Mapping[str, Any]) -> list[Any]:
    """Return claims that are duplicated, huge, deeply nested, of another type or of another time."""
    now = int(time.time())
    changes: list[Mapping[str, Any]] = [
        {"aud": Duplicated(["eve"], ["bob"])},
        {"aud": Duplicated(["bob"], ["eve"])},
        {"exp": Duplicated(0, claims["exp"])},
        {"exp": Duplicated(claims["exp"], 0)},
        {"sub": Duplicated("system:serviceaccount:kube-system:admin", claims["sub"])},
        {"sub": Duplicated(claims["sub"], "system:serviceaccount:kube-system:admin")},
        {"sub": "system:admin"},
        {"sub": "system:anonymous"},
        {"aud": "bob"},
        {"aud": "bo"},
        {"aud": "b"},
        {"aud": ["BOB", "bob ", "bob\0", "bobby"]},
        {"aud": {"bob": "bob"}},
        {"aud": []},
        {"aud": [["bob"]]},
        {"aud": ["bob", None]},
        {"aud": ["eve", "bob"]},
        {"iss": "https://elsewhere.example"},
        {"kubernetes.io": {"namespace": "default"}},
        {"kubernetes.io": {**claims["kubernetes.io"], "pod": {"name": "../../secrets", "uid": "x"}}},
        {"exp": now - 3600},
        {"exp": now - 3600.5},
        {"nbf": now + 3600, "exp": now + 7200},
        {"more": Raw("[" * 2000 + "]" * 2000)},
        {"more": Raw('{"a":' * 700 + "1" + "}" * 700)},
        {"more": "x" * 6000},
        {"more": "x" * 50_000},
    ]
    numbers = ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1" * 400, "1" * 5000, "-1", "1e15", "253402300799")
    changes += [{name: Raw(number)} for name in ("exp", "nbf", "iat") for number in numbers]
    return [{**claims, **change} for change in changes]


def odd_bytes(payload: bytes) -> list[bytes]:
    """Return a payload in other encodings, and payloads that are no JSON object."""
    text = payload.decode()
    return [
        text.encode("utf-16"),
        text.encode("utf-16-le"),
        text.encode("utf-32"),
        b"\xef\xbb\xbf" + payload,
        payload.replace(b"alice", b"al\xefce"),
        payload.replace(b"alice", b"al\\ud800ce"),
        payload.replace(b'"', b"'"),
        payload + payload,
        payload + b"\0",
        b" " + payload + b"\n",
        payload[:-1],
        b"[" + payload + b"]",
        json.dumps(text).encode(),
        b"[" * 5000,
        b'{"a":' * 1000,
        b"",
        b"null",
        b"0",
        b"true",
        b'"bob"',
    ]


def _bytes(document: object) -> bytes:
    return render(document).encode()


def other_spellings(token: bytes) -> list[bytes]:
    """Return other spellings of a token, some of which an API server accepts as the same token."""
    head, payload, signature = token.split(b".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.find(signature[-1:].decode())
    neighbours = [signature[:-1] + alphabet[last ^ bit].encode() for bit in (1, 2, 4)]
    return [
        *(b".".join(parts) for parts in ((head, payload), (head, payload, b""), (b"", payload, signature))),
        *(b".".join((head, payload, other)) for other in neighbours),
        b".".join((head, payload, signature, b"")),
        b".".join((head, payload, signature, signature)),
        b".".join((head, b"", payload, b"", signature)),
        b".".join((signature, payload, head)),
        b"." + token,
        b"..",
        b"...",
        *(token + pad for pad in (b"=", b"==", b"===", b"%3D", b".", b" ", b"\t", b"\n", b"\r\n", b"\0", b"~", b"/")),
        *(pad + token for pad in (b" ", b"\t", b"=", b"\0", b"\xef\xbb\xbf", b"Bearer ", b"+")),
        b".".join(part + b"=" for part in (head, payload, signature)),
        head + b"=." + payload + b"." + signature,
        head + b".\n" + payload + b"." + signature,
        head + b". " + payload + b"." + signature,
        token.replace(b"-", b"+").replace(b"_", b"/"),
        token.replace(b".", b"%2E"),
        token.replace(b".", b":"),
        token.swapcase(),
        token[:-1],
        token[1:],
        token[: len(token) // 2],
        token + token,
        token + b"," + token,
        token + b" " + token,
        token.decode().encode("utf-16-le"),
        b'"' + token + b'"',
        token.ljust(8192, b"A"),
        token.ljust(8193, b"A"),
        token.ljust(100_000, b"A"),
        b"A" * 8192,
        json.dumps({"protected": head.decode(), "payload": payload.decode(), "signature": signature.decode()}).encode(),
    ]


def invalid_tokens(token: str) -> Bytes:
    """Draw a token derived from a valid one in any way; sometimes the valid one itself."""
    good, parsed = token.encode(), parse(token)
    made = st.builds(make_token, headers(), payloads(parsed.claims), st.sampled_from(SIGNATURES))
    claimed = st.builds(make_token, st.just(_bytes(genuine_header())), payloads(parsed.claims), st.just(GENUINE))
    borrowed = payloads(parsed.claims).map(lambda payload: _with_payload(good, payload))
    flipped = st.builds(_flipped, st.just(good), st.integers(0, len(good) - 1), st.integers(1, 255))
    respelled = st.sampled_from(other_spellings(good))
    return st.one_of(
        st.just(good), made, claimed, borrowed, flipped, respelled, (made | claimed).flatmap(_other_spelling)
    )


def _with_payload(token: bytes, payload: bytes) -> bytes:
    head, _, signature = token.split(b".")
    return b".".join((head, encode(payload).encode(), signature))


def _flipped(token: bytes, where: int, how: int) -> bytes:
    return token[:where] + bytes([token[where] ^ how]) + token[where + 1 :]


def _other_spelling(token: bytes) -> Bytes:
    return st.sampled_from(other_spellings(token)) if token.count(b".") == 2 else st.just(token)


def tokens_with_one_change(token: str) -> list[bytes]:
    """Return tokens signed with the cluster's key, each with the claims changed in one place."""
    parsed, header = parse(token), _bytes(genuine_header())
    return [make_token(header, _bytes(claims), GENUINE) for claims in every_change(dict(parsed.claims))]
