"""A signed service account token in its parts, and what its claims say once its signature is verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from podproof._authentication.claims import MAX_TOKEN, check_claims
from podproof._authentication.jwk import SigningKey
from podproof._authentication.jws import JWS, object_member, parse_jws, text_member
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
from podproof._token.jwt import CLOCK_SKEW, numeric_date
from podproof.errors import Expired, MalformedToken, SignatureInvalid


@dataclass(slots=True)
class SignedToken:
    """A token's parts, of which nothing is verified yet. `key_id` and `type` are empty if the header has no kid or typ.

    Keys that the header brings itself (`jwk`, `jku`, `x5u`, `x5c`) are not among them: they are never used.
    """

    algorithm: str
    key_id: str
    type: str
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_signed_token(token: str) -> SignedToken:
    """Return the parts of a token in JWS compact serialization (RFC 7515 section 7.1). Raises MalformedToken."""
    return read_signed_token(parse_jws(token, most=MAX_TOKEN))


def read_signed_token(jws: JWS) -> SignedToken:
    """Return the parts of a token that has been parsed. Raises MalformedToken."""
    header, claims = jws.header, jws.claims
    return SignedToken(
        algorithm=text_member(header, "alg"),
        key_id=text_member(header, "kid") if "kid" in header else "",
        type=text_member(header, "typ") if "typ" in header else "",
        issuer=text_member(claims, "iss"),
        claims=claims,
        signed=jws.signed,
        signature=jws.signature,
    )


def check_signature(token: SignedToken, keys: Sequence[SigningKey]) -> None:
    """Deny a token that none of the keys which it names has signed, by an algorithm of that key (RFC 8725 section 3.1).

    Raises SignatureInvalid.
    """
    if not any(key.verify(token.algorithm, token.signed, token.signature) for key in keys):
        raise SignatureInvalid("the token is not signed with the key that it names")


def parse_verified_claims(token: SignedToken, audiences: Sequence[str], now: float) -> ReviewedToken:
    """Return what a TokenReview for `audiences` says of a token whose signature is verified. `now` is Unix seconds.

    Each claim must be as the API server writes it (pkg/serviceaccount/claims.go, KEP-1205, KEP-4193). It does not say
    whether the service account and the pod are still there.

    Raises WrongAudience, Expired, NotPodBound, or MalformedToken.
    """
    check_claims(token.claims, audiences=audiences, issuers=(token.issuer,), now=now)
    check_begins(token.claims, now, names=("nbf", "iat"))  # the API server writes both, and compares both
    reviewed = read_binding(token.claims, named_audience(token.claims, audiences))
    if token.claims.get("sub") != reviewed.service_account.username:
        raise MalformedToken("the token's sub claim is not that of its service account")
    return reviewed


def check_begins(claims: Mapping[str, Any], now: float, names: Sequence[str]) -> None:
    """Deny a token before the moments of these claims, which it has to have; `now` is Unix seconds.

    Raises Expired or MalformedToken.
    """
    for name in names:
        if now < (begins := numeric_date(claims, name)) - CLOCK_SKEW:
            raise Expired(f"the token's {name} is {begins - now:.0f} s from now: one of the two clocks is wrong")


def named_audience(claims: Mapping[str, Any], audiences: Sequence[str]) -> str:
    """Return the one of our audiences that `check_claims` has found. Raises MalformedToken if aud is not all texts."""
    named = (claims["aud"],) if isinstance(claims["aud"], str) else strings(claims["aud"])
    audience = next((one for one in audiences if one in named), None)
    if audience is None:  # beside it stands something else than a text
        raise MalformedToken("the token's aud claim is not a list of texts")
    return audience


def read_binding(claims: Mapping[str, Any], audience: str) -> ReviewedToken:
    """Return the service account and the pod of a `kubernetes.io` claim. Raises NotPodBound or MalformedToken."""
    private = object_member(claims, "kubernetes.io")
    namespace, account = text_member(private, "namespace"), object_member(private, "serviceaccount")
    username = f"system:serviceaccount:{namespace}:{text_member(account, 'name')}"
    try:
        service_account = service_account_of(username, text_member(account, "uid"))
    except ValueError:
        raise MalformedToken("the token's namespace and service account are not names") from None
    return bound_token(
        service_account,
        audience,
        groups=_groups(namespace),
        extra=_extra(claims, private),
    )


@lru_cache(maxsize=4096)
def _groups(namespace: str) -> tuple[str, ...]:
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")


def _extra(claims: Mapping[str, Any], private: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the user's extra as the API server fills it in: before v1.30 without a credential ID and a node."""
    pod = object_member(private, "pod")
    extra: dict[str, tuple[str, ...]] = {POD_NAME: (text_member(pod, "name"),), POD_UID: (text_member(pod, "uid"),)}
    if "jti" in claims:
        extra[CREDENTIAL_ID] = (f"JTI={text_member(claims, 'jti')}",)
    if "node" in private:
        node = object_member(private, "node")
        extra[NODE_NAME] = (text_member(node, "name"),)
        if "uid" in node:
            extra[NODE_UID] = (text_member(node, "uid"),)
    return extra
