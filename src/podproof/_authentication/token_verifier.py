"""What verifies tokens, in each mode."""

from __future__ import annotations

from typing import Protocol

from podproof._authentication.jws import JWS
from podproof._authentication.token_review import ReviewedToken


class TokenVerifier(Protocol):
    """Verifies tokens."""

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what a valid token says; raise InvalidToken or Unavailable."""

    def verify_at_once(self, token: JWS, /) -> ReviewedToken | None:
        """Return the same without asking, None if that is not possible; raise InvalidToken."""
