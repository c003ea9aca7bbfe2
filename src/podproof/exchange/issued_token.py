"""Reads the tokens that an exchange has issued itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from podproof._authentication.claims import MAX_TOKEN
from podproof._token.jwt import split_token
from podproof.errors import MalformedToken
from podproof.exchange.key_directory import KeyDirectory
from podproof.exchange.pairwise import PairwiseSubjects
from podproof.exchange.pod_reference import PodReference, read_pod
from podproof.exchange.profile import TOKEN_TYPE


class IssuedTokens:
    """The tokens that were issued with the keys of a directory, by any replica. `now` returns Unix seconds."""

    def __init__(
        self, issuer: str, keys: KeyDirectory, pairwise: PairwiseSubjects, *, now: Callable[[], float] = time.time
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._pairwise = pairwise
        self._now = now

    def read(self, token: str) -> Mapping[str, Any] | None:
        """Return the claims of an issued token, None if it is none, or has expired."""
        if len(token) > MAX_TOKEN:
            return None
        try:
            split_token(token)  # PyJWT takes other spellings of base64url as well
            header = jwt.get_unverified_header(token)
            key = next(one for one in self._keys.published_keys() if one.key_id == header.get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public_key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
            )
        except (MalformedToken, jwt.PyJWTError, StopIteration, ValueError, RecursionError):
            return None
        return claims if header.get("typ") == TOKEN_TYPE and self._now() < claims["exp"] else None

    def pod_of(self, claims: Mapping[str, Any]) -> PodReference | None:
        """Return the pod that a token was issued to, None if the secret that shows it is gone."""
        return read_pod(claims, self._pairwise)
