"""The caller of the request at hand, for log lines and for code that is not handed the request."""

from __future__ import annotations

from contextvars import ContextVar

from podproof.identity import PodIdentity

caller: ContextVar[PodIdentity | None] = ContextVar("podproof.caller", default=None)


def current_caller() -> PodIdentity | None:
    """Return who is calling, or None outside a request and for an anonymous one."""
    return caller.get()


def forget_caller() -> None:
    """End a request in a thread that other requests will have after it."""
    caller.set(None)
