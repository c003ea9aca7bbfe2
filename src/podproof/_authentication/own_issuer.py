"""Verifies by signing keys whose issuer is not configured: it is that of our own token, which is read when needed."""

from __future__ import annotations

from collections.abc import Callable

from podproof._apiserver.protocols import IssuerReader
from podproof._authentication.jws import JWS
from podproof._authentication.token_review import ReviewedToken
from podproof._authentication.token_verifier import TokenVerifier


class OwnIssuerVerifier:
    """Verifies tokens with the verifier that `make` returns for the cluster's issuer. The constructor does no I/O."""

    def __init__(self, reader: IssuerReader, make: Callable[[str], TokenVerifier]) -> None:
        self._reader = reader
        self._make = make
        self._verifier: TokenVerifier | None = None

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what a valid token says. Raises InvalidToken or Unavailable."""
        verifier = self._verifier
        if verifier is None:
            verifier = self._verifier = self._make(self._reader.issuer(deadline))
        return verifier.verify(token, deadline)

    def verify_at_once(self, token: JWS) -> ReviewedToken | None:
        """Return the same without any I/O, None if that is not possible. Raises InvalidToken."""
        return None if self._verifier is None else self._verifier.verify_at_once(token)
