"""The readiness endpoint of a WSGI app."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from podproof.drain.shared_state import is_draining

__all__ = ["ready"]


def ready(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:  # noqa: ARG001 (PEP 3333)
    """Respond to a readiness probe: 200, or 503 while the server drains. A WSGI app, to be mounted at a path."""
    status, body = ("503 Service Unavailable", b"draining\n") if is_draining() else ("200 OK", b"ready\n")
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
