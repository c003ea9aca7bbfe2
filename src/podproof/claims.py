"""Claims read without verification: good for refusing a token early, never for accepting one."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from podproof.errors import Expired, NotAToken, OtherAudience, OtherIssuer, Unbound

CLOCK_SKEW = 60.0
"""Seconds by which the API server's clock may differ from ours before we refuse without asking it."""

# The possessive + goes over junk once, and does not come back for another try.
_JWT = re.compile(r"([\w-]++)\.([\w-]++)\.([\w-]++)", re.ASCII)

# By the length of a base64url segment modulo 4, what its last character may be where the unused low bits are zero (RFC
# 4648 section 3.5). Other spellings decode to the same bytes, and would be other keys in memory.
_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}


def read(token: str) -> Mapping[str, Any]:
    """Return the claims of a JSON Web Token (RFC 7519) without verifying anything.

    Raises NotAToken.
    """
    match = _JWT.fullmatch(token)
    if match is None or not all(map(_is_canonical, match.groups())):
        raise NotAToken("the token is not a JSON Web Token in canonical form")
    payload = match[2]
    try:
        data = binascii.a2b_base64(payload.translate(_URLSAFE) + "=" * (-len(payload) % 4))
        claims = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise NotAToken("the token's payload is not JSON") from None
    if not isinstance(claims, dict):
        raise NotAToken("the token's payload is not a JSON object")
    return claims


def _is_canonical(segment: str) -> bool:
    rest = len(segment) % 4
    return not rest or segment[-1] in _LAST.get(rest, "")


def check(claims: Mapping[str, Any], *, audiences: Collection[str], issuers: Collection[str], now: float) -> float:
    """Refuse early what the API server could never vouch for as a pod's token for one of `audiences`.

    `now` is Unix seconds; the clocks may differ by CLOCK_SKEW. An empty `issuers` lets every issuer pass, since a
    cluster that changes its issuer honours both for a while. Returns the token's end in Unix seconds: worth something
    only once the API server has vouched for the token.

    Raises OtherAudience, OtherIssuer, Expired, Unbound, and NotAToken where a claim is not of its form.
    """
    named = claims.get("aud")
    if isinstance(named, str):
        named = [named]
    if not isinstance(named, list) or not any(isinstance(one, str) and one in audiences for one in named):
        raise OtherAudience(f"the token was not issued for {' or '.join(audiences)}")
    if issuers and claims.get("iss") not in issuers:
        raise OtherIssuer(f"the token was not issued by {' or '.join(issuers)}")
    expires_at = numeric_date(claims, "exp")
    if now > expires_at + CLOCK_SKEW:
        raise Expired(f"the token expired {now - expires_at:.0f} s ago")
    if "nbf" in claims and now < (begins := numeric_date(claims, "nbf")) - CLOCK_SKEW:
        raise Expired(f"the token begins {begins - now:.0f} s from now: one of the two clocks is wrong")
    kubernetes = claims.get("kubernetes.io")
    if not isinstance(kubernetes, dict) or not isinstance(kubernetes.get("pod"), dict):
        raise Unbound(
            "the token is bound to no pod: a token from a projected volume is; one from kubectl create token, "
            "or from a Secret, is not"
        )
    return expires_at


# RFC 4648 section 5 writes - and _ where binascii wants + and /.
_URLSAFE = str.maketrans("-_", "+/")


def numeric_date(claims: Mapping[str, Any], name: str) -> float:
    """Return a NumericDate (RFC 7519 section 2), Unix seconds.

    Raises NotAToken where the claim is missing or no time of this era.
    """
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_DATE:
        raise NotAToken(f"the token's {name} claim is not a time")
    return float(value)


# The end of the year 9999: where RFC 3339 dates end, and with them Kubernetes' own.
_LAST_DATE = 253402300799
