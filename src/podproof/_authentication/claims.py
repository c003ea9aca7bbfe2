"""Could this token be ours at all? Decided on unverified claims, before the API server is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from podproof._token.jwt import CLOCK_SKEW, numeric_date
from podproof.errors import Expired, NotPodBound, WrongAudience, WrongIssuer


def check_claims(
    claims: Mapping[str, Any], *, audiences: Collection[str], issuers: Collection[str], now: float
) -> float:
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
        raise WrongAudience(f"the token was not issued for {' or '.join(audiences)}")
    if issuers and claims.get("iss") not in issuers:
        raise WrongIssuer(f"the token was not issued by {' or '.join(issuers)}")
    expires_at = numeric_date(claims, "exp")
    if now > expires_at + CLOCK_SKEW:
        raise Expired(f"the token expired {now - expires_at:.0f} s ago")
    if "nbf" in claims and now < (begins := numeric_date(claims, "nbf")) - CLOCK_SKEW:
        raise Expired(f"the token begins {begins - now:.0f} s from now: one of the two clocks is wrong")
    kubernetes = claims.get("kubernetes.io")
    if not isinstance(kubernetes, dict) or not isinstance(kubernetes.get("pod"), dict):
        raise NotPodBound(
            "the token is bound to no pod: a token from a projected volume is; one from kubectl create token, "
            "or from a Secret, is not"
        )
    return expires_at
