"""The caller in Quart: `from podproof.quart import caller`, used like `quart.request`."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "quart")

from quart import has_websocket_context, request, websocket

from podproof._request.caller_proxy import CallerProxy
from podproof._request.context import get_caller
from podproof._request.denied import denied
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NoCredential
from podproof.identity import PodIdentity

__all__ = ["PodAuthMiddleware", "caller"]


def _get_identity() -> PodIdentity:
    identity = get_caller((websocket if has_websocket_context() else request).scope)
    if identity is None:
        raise denied(NoCredential("the request is anonymous, and its view needs a caller"))
    return identity


caller: PodIdentity = CallerProxy(_get_identity)  # type: ignore[assignment]  # a proxy, as quart.request is
