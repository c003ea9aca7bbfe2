"""Nonces for proofs (RFC 9449 section 8): a proof with one was made a short while ago, for this server."""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from secrets import token_bytes

LIFETIME = 300.0
"""Seconds for which a nonce is accepted at the least, and up to twice as long."""


class Nonces:
    """Nonces that need no memory: HMAC-SHA-256 of the number of a period.

    `secrets` returns what they are made with, at least 32 random bytes each: the first one makes them, and those of all
    are accepted, so servers that share one accept each other's. By default it is this process's own. `now` returns Unix
    seconds.
    """

    def __init__(
        self, secrets: Callable[[], Sequence[bytes]] | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        own = (token_bytes(32),)
        self._secrets = secrets or (lambda: own)
        self._now = now

    def current(self) -> str:
        """Return a nonce for the next proof."""
        return _make(self._secrets()[0], self._period())

    def accepts(self, nonce: object) -> bool:
        """Return True if this is the nonce of this period or of the one before."""
        if not isinstance(nonce, str) or not nonce.isascii():
            return False
        period = self._period()
        return any(
            hmac.compare_digest(nonce, _make(secret, one)) for secret in self._secrets() for one in (period, period - 1)
        )

    def _period(self) -> int:
        return int(self._now() // LIFETIME)


def _make(secret: bytes, period: int) -> str:
    digest = hmac.digest(secret, f"podproof nonce {period}".encode(), "sha256")
    return urlsafe_b64encode(digest[:24]).decode()
