"""The caller, as Flask likes to be told."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "flask")

from flask import Response, abort, request
from werkzeug.local import LocalProxy

from podproof._request.context import deny, get_caller
from podproof.errors import NoCredential
from podproof.identity import PodIdentity
from podproof.wsgi import PodAuthMiddleware

__all__ = ["PodAuthMiddleware", "caller"]


def _caller() -> PodIdentity:
    identity = get_caller(request.environ)
    if identity is None:
        status, headers, body = deny(NoCredential("nobody is known on this request, and its view asks who it is"))
        abort(Response(body, status, headers))
    return identity


caller: PodIdentity = LocalProxy(_caller)  # type: ignore[assignment]  # stands in for what it leads to, as flask.request
"""Who is calling: a `PodIdentity`. Where nobody is known (an `optional` or `exempt` request), the answer is 401."""
