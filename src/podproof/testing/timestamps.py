"""Times as Kubernetes writes them: RFC 3339, whole seconds, UTC."""

from __future__ import annotations

import datetime as dt


def text(seconds: float) -> str:
    """Write Unix seconds."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Read Unix seconds."""
    return dt.datetime.fromisoformat(text).timestamp()
