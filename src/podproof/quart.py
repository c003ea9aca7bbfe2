"""The caller, as Quart likes to be told."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "quart")

from quart import Response, abort, has_websocket_context, request, websocket
from werkzeug.local import LocalProxy

from podproof._request.context import deny, get_caller
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NoCredential
from podproof.identity import PodIdentity

__all__ = ["PodAuthMiddleware", "caller"]


def _caller() -> PodIdentity:
    identity = get_caller((websocket if has_websocket_context() else request).scope)
    if identity is None:
        status, headers, body = deny(NoCredential("nobody is known on this request, and its view asks who it is"))
        abort(Response(body, status, dict(headers)))
    return identity


caller: PodIdentity = LocalProxy(_caller)  # type: ignore[assignment]  # stands in for what it leads to, as quart.request
"""Who is calling: a `PodIdentity`. Where nobody is known (an `optional` or `exempt` request), the answer is 401."""
