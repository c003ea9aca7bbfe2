"""A signed service account token in its parts, and what its claims say once its signature is verified."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from podproof._authentication.claims import MAX_TOKEN, check_claims
from podproof._authentication.token_review import (
    CREDENTIAL_ID,
    NODE_NAME,
    NODE_UID,
    POD_NAME,
    POD_UID,
    ReviewedToken,
    bound_token,
    service_account_of,
    strings,
)
from podproof._token.jwt import CLOCK_SKEW, decode_segment, numeric_date, split_token
from podproof.errors import Expired, MalformedToken

MAX_BRACKETS = 64
"""How many objects and lists a header or a payload may open, in texts too: a service account token's have up to 6.

Counted before they are parsed, so that nesting is bounded on every version of Python.
"""

# RFC 7515 section 4.1.11: what a verifier does not know has to be rejected if it is critical, and we know no such
# extension. The others change what is signed (RFC 7797) or encrypted and compressed (RFC 7516).
_UNSUPPORTED = ("crit", "b64", "enc", "zip")


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token's parts, of which nothing is verified yet. `key_id` is empty if the header names no key.

    Keys that the header brings itself (`jwk`, `jku`, `x5u`, `x5c`) are not among them: they are never used.
    """

    algorithm: str
    key_id: str
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_signed_token(token: str) -> SignedToken:
    """Return the parts of a token in JWS compact serialization (RFC 7515 section 7.1).

    Raises MalformedToken, also for what parsers differ about: duplicated members (RFC 8725 section 2.4), NaN, other
    spellings of base64url.
    """
    if len(token) > MAX_TOKEN:
        raise MalformedToken(f"the token is longer than {MAX_TOKEN} bytes")
    head, payload, signature = split_token(token)
    header, claims = _parse_object("header", head), _parse_object("payload", payload)
    if unsupported := [name for name in _UNSUPPORTED if name in header]:
        raise MalformedToken(f"the token's header has {unsupported[0]}, which is not supported")
    return SignedToken(
        algorithm=_text(header, "alg"),
        key_id=_text(header, "kid") if "kid" in header else "",
        issuer=_text(claims, "iss"),
        claims=claims,
        signed=token[: len(head) + 1 + len(payload)].encode(),
        signature=decode_segment(signature),
    )


def parse_verified_claims(token: SignedToken, audiences: Sequence[str], now: float) -> ReviewedToken:
    """Return what a TokenReview for `audiences` says of a token whose signature is verified. `now` is Unix seconds.

    Each claim must be as the API server writes it (pkg/serviceaccount/claims.go, KEP-1205, KEP-4193). It does not say
    whether the service account and the pod are still there.

    Raises WrongAudience, Expired, NotPodBound, or MalformedToken.
    """
    claims = token.claims
    check_claims(claims, audiences=audiences, issuers=(token.issuer,), now=now)
    for name in ("nbf", "iat"):  # the API server writes both, and compares both
        if now < (begins := numeric_date(claims, name)) - CLOCK_SKEW:
            raise Expired(f"the token's {name} is {begins - now:.0f} s from now: one of the two clocks is wrong")
    named = (claims["aud"],) if isinstance(claims["aud"], str) else strings(claims["aud"])
    audience = next((one for one in audiences if one in named), None)
    if audience is None:  # check_claims has found one: beside it stands something else than a text
        raise MalformedToken("the token's aud claim is not a list of texts")
    private = _object(claims, "kubernetes.io")
    namespace, account = _text(private, "namespace"), _object(private, "serviceaccount")
    username = f"system:serviceaccount:{namespace}:{_text(account, 'name')}"
    try:
        service_account = service_account_of(username, _text(account, "uid"))
    except ValueError:
        raise MalformedToken("the token's namespace and service account are not names") from None
    if claims.get("sub") != username:
        raise MalformedToken("the token's sub claim is not that of its service account")
    return bound_token(
        service_account,
        audience,
        groups=strings(["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]),
        extra=_extra(claims, private),
    )


def _extra(claims: Mapping[str, Any], private: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the user's extra as the API server fills it in: before v1.30 without a credential ID and a node."""
    pod = _object(private, "pod")
    extra: dict[str, tuple[str, ...]] = {POD_NAME: (_text(pod, "name"),), POD_UID: (_text(pod, "uid"),)}
    if "jti" in claims:
        extra[CREDENTIAL_ID] = (f"JTI={_text(claims, 'jti')}",)
    if "node" in private:
        node = _object(private, "node")
        extra[NODE_NAME] = (_text(node, "name"),)
        if "uid" in node:
            extra[NODE_UID] = (_text(node, "uid"),)
    return extra


def _text(parent: Mapping[str, Any], name: str) -> str:
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedToken(f"the token's {name} is missing, or not a text")
    return value


def _object(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise MalformedToken(f"the token's {name} is missing, or not a JSON object")
    return value


def _without_duplicates(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        raise ValueError("a member is duplicated")
    return made


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_reject_constant)


def _parse_object(part: str, segment: str) -> dict[str, Any]:
    try:
        text = decode_segment(segment).decode()
        parsed = _DECODER.decode(text) if text.count("{") + text.count("[") <= MAX_BRACKETS else None
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise MalformedToken(f"the token's {part} is not a JSON object with each member once")
    return parsed
