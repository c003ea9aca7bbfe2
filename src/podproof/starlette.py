"""The caller in Starlette: `caller(request)`, a typed `request.user` that anonymous requests do not have."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "starlette")

from starlette.requests import HTTPConnection

from podproof._request.context import get_caller
from podproof._request.denied import denied
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NoCredential
from podproof.identity import PodIdentity

__all__ = ["PodAuthMiddleware", "caller"]


def caller(connection: HTTPConnection) -> PodIdentity:
    """Return the `PodIdentity` of the caller of a request or WebSocket.

    Raises NoCredential for an anonymous one, which PodAuthMiddleware turns into a 401 response, and RuntimeError if the
    request did not pass through PodAuthMiddleware.
    """
    identity = get_caller(connection.scope)
    if identity is None:
        raise denied(NoCredential("the request is anonymous, and its endpoint needs a caller"))
    return identity
