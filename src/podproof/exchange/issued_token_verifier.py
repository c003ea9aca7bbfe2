"""A token that a token exchange has issued (RFC 9068), verified by the published keys of its issuer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from podproof._authentication.claims import check_claims
from podproof._authentication.jwk import SigningKey
from podproof._authentication.jws import JWS, object_member, text_member
from podproof._authentication.key_set import KeySet
from podproof._authentication.pods import FoundPod
from podproof._authentication.signed_token import (
    SignedToken,
    check_begins,
    check_signature,
    named_audience,
    parse_signed_token,
    read_binding,
    read_signed_token,
)
from podproof._authentication.token_review import ReviewedToken
from podproof.errors import MalformedToken, SignatureInvalid, Unavailable
from podproof.identity import Pod, ServiceAccount, frozen_dict

SUBJECT = "sub"
SCOPE = "scope"
CLIENT_ID = "client_id"
ACTOR = "act.sub"
KEY_THUMBPRINT = "cnf.jkt"
"""What the claims of an issued token are called in `PodIdentity.extra`."""

_TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 section 2.1; media types have no case


class IssuedTokenVerifier:
    """Verifies an issuer's tokens for our audiences by its keys alone. `now` returns Unix seconds."""

    def __init__(
        self, issuer: str, key_set: KeySet, audiences: Sequence[str], *, now: Callable[[], float] = time.time
    ) -> None:
        self._issuer = issuer
        self._key_set = key_set
        self._audiences = tuple(audiences)
        self._now = now

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what a valid token says. `deadline` is in monotonic seconds. Raises InvalidToken or Unavailable."""
        signed = parse_signed_token(token)
        _check_type(signed)
        keys = self._key_set.find(signed.key_id, deadline)
        if not keys and self._key_set.failing:
            raise Unavailable("the issuer's signing keys cannot be read")
        if not keys:
            raise SignatureInvalid("the token names a key that its issuer does not publish")
        return self._verify(signed, keys)

    def verify_at_once(self, token: JWS) -> ReviewedToken | None:
        """Return the same without any I/O, None if the keys have to be fetched. Raises InvalidToken."""
        signed = read_signed_token(token)
        _check_type(signed)
        keys = self._key_set.find_at_once(signed.key_id)
        return self._verify(signed, keys) if keys else None

    def _verify(self, token: SignedToken, keys: Sequence[SigningKey]) -> ReviewedToken:
        check_signature(token, keys)
        claims = token.claims
        check_claims(claims, audiences=self._audiences, issuers=(self._issuer,), now=self._now())
        check_begins(claims, self._now(), names=("iat",))
        reviewed = read_binding(claims, named_audience(claims, self._audiences))
        return replace(reviewed, groups=(), extra=frozen_dict({**reviewed.extra, **_extra(claims)}))


def _check_type(token: SignedToken) -> None:
    if token.type.lower() not in _TYPES:
        raise MalformedToken("the token's typ is not at+jwt")


def _extra(claims: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return what an issued token says besides; what is there has to be of its type. Raises MalformedToken."""
    extra: dict[str, tuple[str, ...]] = {
        SUBJECT: (text_member(claims, "sub"),),
        CLIENT_ID: (text_member(claims, "client_id"),),
    }
    if "scope" in claims:
        extra[SCOPE] = tuple(text_member(claims, "scope").split(" "))
    if "act" in claims:
        extra[ACTOR] = (text_member(object_member(claims, "act"), "sub"),)
    if "cnf" in claims:  # another confirmation than ours is one that we cannot check
        extra[KEY_THUMBPRINT] = (text_member(object_member(claims, "cnf"), "jkt"),)
    return extra


class ClaimedPods:
    """The pods that issued tokens name: their issuer has seen them, and they are not looked up."""

    def get(self, service_account: ServiceAccount, name: str, uid: str, _: float) -> FoundPod:
        """Return the pod."""
        return self.last_known(service_account, name, uid)

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> FoundPod:
        """Return the pod."""
        return FoundPod(Pod(service_account.namespace, name, uid), fresh_until=math.inf)
