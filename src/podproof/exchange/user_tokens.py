"""Tokens of users, for whom pods act: verified by the keys of their issuers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from podproof._authentication.key_set import KeySet
from podproof._authentication.key_source import FileKeys, URLKeys
from podproof._authentication.signed_token import check_signature, parse_signed_token
from podproof._token.jwt import CLOCK_SKEW, numeric_date
from podproof.errors import Expired, MalformedToken, SignatureInvalid, WrongAudience, WrongIssuer
from podproof.exchange.profile import POD_CLAIM
from podproof.exchange.user_token import UserToken

MAX_SUBJECT = 255
"""The longest subject, in characters (OpenID Connect Core section 2)."""

_RESERVED = "system:"  # as in the API server: pkg/serviceaccount, and OIDC usernames without a prefix


class ActorNotAllowed(SignatureInvalid):
    """The user's token names another actor (RFC 8693 section 4.4)."""

    code = "actor-not-allowed"


class UserTokens:
    """Verifies users' tokens for our audiences. `issuers` has the JWK Set of each issuer: a path or an https URL."""

    def __init__(
        self, issuers: Mapping[str, str], audiences: Sequence[str], *, now: Callable[[], float] = time.time
    ) -> None:
        self._key_sets = {
            issuer: KeySet(FileKeys(source) if source.startswith("/") else URLKeys(source))
            for issuer, source in issuers.items()
        }
        self._audiences = frozenset(audiences)
        self._now = now

    def verify(self, token: str, actor: str, deadline: float) -> UserToken:
        """Return what a user's token says, for whom `actor`, a service account's username, acts. Blocks for the keys.

        Raises an InvalidToken.
        """
        signed = parse_signed_token(token)
        key_set = self._key_sets.get(signed.issuer)
        if key_set is None:
            raise WrongIssuer("the user's token is of an issuer that is not in user_issuers")
        check_signature(signed, key_set.find(signed.key_id, deadline))
        return self._read(signed.issuer, signed.claims, actor)

    def _read(self, issuer: str, claims: Mapping[str, Any], actor: str) -> UserToken:
        named = claims.get("aud")
        audiences = named if isinstance(named, list) else [named]
        if not any(isinstance(one, str) and one in self._audiences for one in audiences):
            raise WrongAudience("the user's token is not for this exchange")
        expires_at, now = numeric_date(claims, "exp"), self._now()
        if now >= expires_at:
            raise Expired("the user's token has expired")
        if any(name in claims and now < numeric_date(claims, name) - CLOCK_SKEW for name in ("nbf", "iat")):
            raise Expired("the user's token is not valid yet")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT or not subject.isprintable():
            raise MalformedToken("the user's token has no sub claim that can be issued again")
        if subject.startswith(_RESERVED):
            raise MalformedToken(f"the user's sub claim begins with {_RESERVED}, as service accounts do")
        if POD_CLAIM in claims:
            raise MalformedToken("the token that is presented for a user is a pod's")
        if "may_act" in claims and not _may_act(claims["may_act"], actor):
            raise ActorNotAllowed("the user's token names another actor in may_act")
        return UserToken(issuer, subject, expires_at)


def _may_act(claim: object, actor: str) -> bool:
    """Return True if a may_act claim is about this actor, and names nothing else to compare it by."""
    return claim == {"sub": actor}
