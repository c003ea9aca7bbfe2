"""The caller of the request at hand: on the request itself, and for code that is not handed the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from podproof._request.problem import Answer
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity

IDENTITY = "podproof.identity"
"""The key of the caller in a WSGI environ and an ASGI scope, where no client can write."""

NOT_WRAPPED = "nobody has asked who is calling: put a PodAuthMiddleware around this app"

Deny = Callable[[PodAuthError], Answer]
"""How the middleware around the app refuses the request at hand."""

current_request: ContextVar[tuple[PodIdentity | None, Deny | None]] = ContextVar(
    "podproof.request", default=(None, None)
)


def get_caller(request: Mapping[str, Any]) -> PodIdentity | None:
    """Return the caller of a WSGI environ or an ASGI scope, None for an anonymous one.

    Raises RuntimeError where no PodAuthMiddleware has let the request in.
    """
    try:
        identity: PodIdentity | None = request[IDENTITY]
    except KeyError:
        raise RuntimeError(NOT_WRAPPED) from None
    return identity


def current_caller() -> PodIdentity | None:
    """Return who is calling, or None outside a request and for an anonymous one."""
    return current_request.get()[0]


def deny(refusal: PodAuthError) -> Answer:
    """Refuse the request at hand as the middleware around the app does: it is logged, and the answer returned.

    Raises RuntimeError where there is no PodAuthMiddleware.
    """
    _, refuse_here = current_request.get()
    if refuse_here is None:
        raise RuntimeError(NOT_WRAPPED)
    return refuse_here(refusal)


def forget_caller() -> None:
    """End a request in a thread that other requests will have after it."""
    current_request.set((None, None))
