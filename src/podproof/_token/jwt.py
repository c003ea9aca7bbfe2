"""The claims of a JSON Web Token, read without verification: enough to reject a token early, never to accept one."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from podproof.errors import MalformedToken

CLOCK_SKEW = 60.0
"""Seconds by which the API server's clock may differ from ours before a token is rejected without a TokenReview."""

# The possessive + reads malformed input once, without backtracking.
_JWT = re.compile(r"([\w-]++)\.([\w-]++)\.([\w-]++)", re.ASCII)

# By the length of a base64url segment modulo 4, what its last character may be where the unused low bits are zero (RFC
# 4648 section 3.5). Other spellings decode to the same bytes, and would be other keys in the cache.
_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}


def read_claims(token: str) -> Mapping[str, Any]:
    """Return the claims of a JSON Web Token (RFC 7519) without verifying anything.

    Raises MalformedToken.
    """
    _, payload, _ = split_token(token)
    try:
        claims = json.loads(decode_segment(payload).decode())
    except (ValueError, RecursionError):
        raise MalformedToken("the token's payload is not JSON") from None
    if not isinstance(claims, dict):
        raise MalformedToken("the token's payload is not a JSON object")
    return claims


def split_token(token: str) -> tuple[str, str, str]:
    """Return the header, payload and signature of a token (RFC 7515 section 7.1), each in canonical base64url.

    Raises MalformedToken.
    """
    match = _JWT.fullmatch(token)
    if match is not None:
        header, payload, signature = match.groups()
        if _is_canonical(header) and _is_canonical(payload) and _is_canonical(signature):
            return header, payload, signature
    raise MalformedToken("the token is not a JSON Web Token in canonical form")


def decode_segment(segment: str) -> bytes:
    """Return the bytes of a segment of `split_token`."""
    return binascii.a2b_base64(segment.encode().translate(_URLSAFE) + b"=" * (-len(segment) % 4))


def _is_canonical(segment: str) -> bool:
    rest = len(segment) % 4
    return not rest or segment[-1] in _LAST.get(rest, "")


# RFC 4648 section 5 writes - and _ where binascii wants + and /.
_URLSAFE = bytes.maketrans(b"-_", b"+/")


def numeric_date(claims: Mapping[str, Any], name: str) -> float:
    """Return a NumericDate (RFC 7519 section 2) in Unix seconds.

    Raises MalformedToken if the claim is missing or not a date up to the year 9999.
    """
    value: Any = claims.get(name)
    if type(value) not in (int, float) or not 0 <= value <= _LAST_DATE:  # and not bool, which is an int
        raise MalformedToken(f"the token's {name} claim is not a time")
    return float(value)


# The end of the year 9999, the last one of RFC 3339 dates, which Kubernetes uses.
_LAST_DATE = 253402300799
