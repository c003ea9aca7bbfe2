"""How long an issued token lives."""

from __future__ import annotations

DEFAULT_LIFETIME = 300
MAX_LIFETIME = 900
"""Seconds. Services check tokens without a question to anyone, so a short life is what limits a stolen one."""
