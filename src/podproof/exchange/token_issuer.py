"""Issues tokens: signed JWTs in the profile of RFC 9068, for one audience each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt

from podproof.errors import Expired
from podproof.exchange.grants import Granted
from podproof.exchange.key_directory import KeyDirectory
from podproof.exchange.pairwise import PairwiseSubjects
from podproof.exchange.pod_reference import pod_claim, sealed_pod
from podproof.exchange.profile import POD_CLAIM, TOKEN_TYPE
from podproof.exchange.user_token import UserToken
from podproof.identity import PodIdentity


class IssuedToken(NamedTuple):
    """A token, its ID, how it is presented, and how many seconds it lives."""

    token: str
    token_id: str
    token_type: str
    expires_in: int


class TokenIssuer:
    """Issues tokens that services verify by the published keys.

    `lifetime` is in seconds, `now` in Unix seconds. `pairwise` makes pairwise subjects, and seals the pod where an
    audience is not to see it.
    """

    def __init__(
        self,
        issuer: str,
        keys: KeyDirectory,
        pairwise: PairwiseSubjects,
        *,
        lifetime: float,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(16),
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._pairwise = pairwise
        self._lifetime = lifetime
        self._now = now
        self._new_id = new_id

    def issue(
        self, identity: PodIdentity, granted: Granted, *, user: UserToken | None = None, jkt: str | None = None
    ) -> IssuedToken:
        """Return a token for a pod, or for a user for whom it acts. It expires with their tokens at the latest.

        `jkt` is the thumbprint of the key that the pod has proved to have: the token is bound to it (RFC 9449 section
        6.1). Raises Expired if one of their tokens has expired since it was verified.
        """
        issued_at = int(self._now())
        ends = [issued_at + self._lifetime, identity.expires_at, *([] if user is None else [user.expires_at])]
        expires_at = int(min(ends))
        if expires_at <= issued_at:
            raise Expired("a token that was presented has expired")
        client, sub = identity.service_account.username, None if user is None else user.subject
        if granted.subject == "pairwise":
            client = self._pairwise.make("service-account", client, granted.audience)
            if user is not None:
                sub = self._pairwise.make("user", f"{user.issuer} {user.subject}", granted.audience)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": sub or client,
            "aud": granted.audience,
            "exp": expires_at,
            "iat": issued_at,
            "jti": self._new_id() if granted.pod else sealed_pod(identity, self._pairwise),
            "client_id": client,
        }
        if granted.scopes:
            claims["scope"] = " ".join(granted.scopes)
        if user is not None:
            claims["act"] = {"sub": client}
        if granted.pod:
            claims[POD_CLAIM] = pod_claim(identity)
        if jkt is not None:
            claims["cnf"] = {"jkt": jkt}
        key = self._keys.signing_key()
        headers = {"typ": TOKEN_TYPE, "kid": key.key_id}
        token = jwt.encode(claims, key.private_key, algorithm=key.algorithm, headers=headers)
        return IssuedToken(token, claims["jti"], "DPoP" if jkt else "Bearer", expires_at - issued_at)
