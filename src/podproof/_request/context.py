"""The caller of the current request: on the request itself, and for code that is not handed the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from podproof._request.problem import HTTPResponse
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity

IDENTITY = "podproof.identity"
"""The key of the caller in a WSGI environ and an ASGI scope, where no client can write."""

NOT_WRAPPED = "this request did not pass through PodAuthMiddleware; wrap the app with it"

Deny = Callable[[PodAuthError], HTTPResponse]
"""Logs a denial of the current request, and returns the response."""


class CurrentRequest:
    """The request that is being handled, until it ends.

    Servers and frameworks copy contexts into tasks, threads, timers and the next request of a kept connection
    (python/cpython#140947), so the context variable holds this object, which is emptied when its request ends: a copy
    that outlives the request has no caller any more, and keeps nothing of it alive.
    """

    __slots__ = ("deny", "identity")

    identity: PodIdentity | None
    deny: Deny | None

    def end(self) -> None:
        """Empty it: a context that still holds it has no caller from now on."""
        self.identity = self.deny = None


current_request: ContextVar[CurrentRequest | None] = ContextVar("podproof.request", default=None)


def get_caller(request: Mapping[str, Any]) -> PodIdentity | None:
    """Return the caller of a WSGI environ or an ASGI scope, None for an anonymous one.

    Raises RuntimeError if the request did not pass through PodAuthMiddleware.
    """
    try:
        identity: PodIdentity | None = request[IDENTITY]
    except KeyError:
        raise RuntimeError(NOT_WRAPPED) from None
    return identity


def current_caller() -> PodIdentity | None:
    """Return the caller of the current request, None outside a request and for an anonymous caller.

    The caller ends with the request: a task or thread that works on after the response has to be handed the identity.
    """
    request = current_request.get()
    return None if request is None else request.identity


def deny(error: PodAuthError) -> HTTPResponse:
    """Deny the current request as the middleware around the app does: log it, and return the response.

    Raises RuntimeError if the request did not pass through PodAuthMiddleware, or has ended.
    """
    request = current_request.get()
    if request is None or request.deny is None:
        raise RuntimeError(NOT_WRAPPED)
    return request.deny(error)
