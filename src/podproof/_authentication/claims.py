"""Could this token be ours at all? Decided on unverified claims, before the API server is asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from podproof._token.jwt import CLOCK_SKEW, numeric_date, read_claims
from podproof.errors import Expired, MalformedCredential, NotPodBound, WrongAudience, WrongIssuer

MAX_TOKEN = 8192
"""The longest token that is looked at, in bytes. A service-account token has about 1,200."""

# The b64token alphabet of RFC 6750 section 2.1 without its padding, which no JSON Web Token has (RFC 7515 section 2).
_TOKEN = re.compile(rf"[A-Za-z0-9\-._~+/]{{1,{MAX_TOKEN}}}")


def check_token_alphabet(token: str) -> None:
    """Deny a token with characters that no bearer token has.

    The API server cuts a token at its first blank, so that `a` and `a b` would be one token with two cache keys.

    Raises MalformedCredential.
    """
    if _TOKEN.fullmatch(token) is None:
        raise MalformedCredential("the token has characters that no bearer token has")


_NOT_IN_URLS = re.compile(r"[^!-~]")


def canonical_issuer(issuer: str) -> str:
    """Return an issuer without what may be taken for the same: case, slashes at its end, and what no URL has in it.

    To tell a cluster's tokens from others', never to accept one.
    """
    return _NOT_IN_URLS.sub("", issuer).rstrip("/").lower()


_MAX_NAMED = 129
"""Audiences of a rejected token that are logged: more do not fit into the 256 characters that are kept of them."""

_UNVERIFIED = {"unverified_issuer": "iss", "unverified_audience": "aud", "unverified_subject": "sub"}


def unverified_names(token: str) -> Mapping[str, str]:
    """Return what a rejected token says of its issuer, audience and subject, for the log. None of it can be believed.

    Without those that are missing or of another type. Raises MalformedToken.
    """
    claims = read_claims(token)
    named = {field: claims.get(claim) for field, claim in _UNVERIFIED.items()}
    audience = named["unverified_audience"]
    if isinstance(audience, list):
        named["unverified_audience"] = " ".join(one for one in audience[:_MAX_NAMED] if isinstance(one, str))
    return {field: value for field, value in named.items() if isinstance(value, str)}


def check_claims(
    claims: Mapping[str, Any], *, audiences: Collection[str], issuers: Collection[str], now: float
) -> float:
    """Return when a token expires, in Unix seconds; deny what a TokenReview for one of `audiences` could never accept.

    The claims are unverified: the result counts only once the API server has authenticated the token. `now` is Unix
    seconds; the clocks may differ by CLOCK_SKEW. An empty `issuers` accepts every issuer, since a cluster that changes
    its issuer honours both for a while.

    Raises WrongAudience, WrongIssuer, Expired, NotPodBound, or MalformedToken for a claim of another form.
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
