"""Podproof's optional parts, left out: what is measured is what `pip install podproof` brings."""

from __future__ import annotations

import sys

EXTRAS = ("prometheus_client", "opentelemetry")


def leave_out() -> None:
    """Make this process believe that none of the extras is installed. To be called before podproof is imported."""
    for name in EXTRAS:
        sys.modules[name] = None  # type: ignore[assignment]  # at this, an import raises ModuleNotFoundError
