"""What a user's verified token says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UserToken:
    """A user for whom a pod acts: who it is, by whom the token was issued, until when, in Unix seconds."""

    issuer: str
    subject: str
    expires_at: float
