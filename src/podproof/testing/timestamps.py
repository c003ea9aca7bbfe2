"""Times as Kubernetes writes them: RFC 3339, whole seconds, UTC."""

from __future__ import annotations

import datetime


def text(seconds: float) -> str:
    """Write Unix seconds."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Read Unix seconds."""
    return datetime.datetime.fromisoformat(text).timestamp()
