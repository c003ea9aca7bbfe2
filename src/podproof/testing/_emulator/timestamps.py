"""Times in the form of Kubernetes: RFC 3339, whole seconds, UTC."""

from __future__ import annotations

import datetime as dt


def text(seconds: float) -> str:
    """Return the time for Unix seconds."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Return the Unix seconds of a time."""
    return dt.datetime.fromisoformat(text).timestamp()
