"""The hash by which a DPoP proof names its access token."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256


def token_hash(token: str) -> str:
    """Return the `ath` of a token: its SHA-256 in base64url (RFC 9449 section 4.2)."""
    return urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()
