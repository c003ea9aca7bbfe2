"""Drives a pipeline's flow in a thread, which it blocks."""

from __future__ import annotations

from contextlib import suppress

from podproof._request.flow import Allowed, Flow


def run_flow(flow: Flow) -> Allowed:
    """Return what a flow decides, waiting for what it asks for. Raises its PodAuthError."""
    try:
        while True:
            wait = next(flow)
            with suppress(TimeoutError):
                wait.future.exception(wait.seconds)
    except StopIteration as decided:
        allowed: Allowed = decided.value
        return allowed
