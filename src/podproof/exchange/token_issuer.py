"""Issues tokens: signed JWTs in the profile of RFC 9068, for one audience each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt

from podproof.errors import Expired
from podproof.exchange.grants import Granted, SubjectMode
from podproof.exchange.key_directory import KeyDirectory
from podproof.exchange.pairwise import PairwiseSubjects, SubjectKind
from podproof.exchange.pod_reference import pod_claim, sealed_pod
from podproof.exchange.user_tokens import UserToken
from podproof.identity import PodIdentity

TOKEN_TYPE = "at+jwt"  # noqa: S105  RFC 9068 section 2.1


class IssuedToken(NamedTuple):
    """A token, its ID, and how many seconds it lives."""

    token: str
    token_id: str
    expires_in: int


class TokenIssuer:
    """Issues tokens that services verify by the published keys.

    `lifetime` is in seconds, `now` in Unix seconds. `subject` is for grants that do not say what their audience sees;
    `pairwise` is needed where a grant or this says "pairwise".
    """

    def __init__(
        self,
        issuer: str,
        keys: KeyDirectory,
        pairwise: PairwiseSubjects | None,
        *,
        lifetime: float,
        subject: SubjectMode,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(16),
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._pairwise = pairwise
        self._lifetime = lifetime
        self._subject = subject
        self._now = now
        self._new_id = new_id

    def issue(
        self, identity: PodIdentity, granted: Granted, *, user: UserToken | None = None, jkt: str | None = None
    ) -> IssuedToken:
        """Return a token for a pod, on behalf of a user if there is one. It expires with their tokens at the latest.

        `jkt` is the thumbprint of the key that the pod has proved to have: the token is bound to it (RFC 9449 section
        6.1). Raises Expired if one of their tokens has expired since it was verified.
        """
        issued_at = int(self._now())
        ends = [issued_at + self._lifetime, identity.expires_at, *([user.expires_at] if user else [])]
        expires_at = int(min(ends))
        if expires_at <= issued_at:
            raise Expired("the token that was presented has expired")
        pairwise = self._pairwise if (granted.subject or self._subject) == "pairwise" else None
        shows_pod = granted.pod if granted.pod is not None else pairwise is None

        def subject_of(kind: SubjectKind, identifier: str) -> str:
            return identifier if pairwise is None else pairwise.make(kind, identifier, granted.audience)

        client = subject_of("service-account", identity.service_account.username)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": client if user is None else subject_of("user", f"{user.issuer} {user.subject}"),
            "aud": granted.audience,
            "exp": expires_at,
            "iat": issued_at,
            "jti": self._new_id() if shows_pod else sealed_pod(identity, self._pairwise),
            "client_id": client,
        }
        if granted.scopes:
            claims["scope"] = " ".join(granted.scopes)
        if user is not None:
            claims["act"] = {"sub": client}
        if shows_pod:
            claims[POD_CLAIM] = pod_claim(identity)
        if jkt is not None:
            claims["cnf"] = {"jkt": jkt}
        key = self._keys.signing_key()
        headers = {"typ": TOKEN_TYPE, "kid": key.key_id}
        token = jwt.encode(claims, key.private_key, algorithm=key.algorithm, headers=headers)
        return IssuedToken(token, claims["jti"], expires_at - issued_at)
