"""Nonces for proofs (RFC 9449 section 8): a proof with one was made a short while ago, for this server."""

from __future__ import annotations

import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable

LIFETIME = 300.0
"""Seconds for which a nonce is accepted at the least, and up to twice as long."""


class Nonces:
    """Nonces that need no memory: the number of a period, and its HMAC-SHA-256.

    Servers with the same `secret`, at least 32 random bytes, accept each other's. `now` returns Unix seconds.
    """

    def __init__(self, secret: bytes | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._secret = secret or secrets.token_bytes(32)
        self._now = now

    def current(self) -> str:
        """Return a nonce for the next proof."""
        return self._make(self._period())

    def accepts(self, nonce: object) -> bool:
        """Return True if this is the nonce of this period or of the one before."""
        if not isinstance(nonce, str) or not nonce.isascii():
            return False
        period = self._period()
        return any(hmac.compare_digest(nonce, self._make(one)) for one in (period, period - 1))

    def _period(self) -> int:
        return int(self._now() // LIFETIME)

    def _make(self, period: int) -> str:
        digest = hmac.digest(self._secret, f"podproof nonce {period}".encode(), "sha256")
        return urlsafe_b64encode(digest[:24]).decode()
