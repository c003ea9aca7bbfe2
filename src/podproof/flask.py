"""The caller in Flask: `from podproof.flask import caller`, used like `flask.request`."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "flask")

from flask import request

from podproof._request.caller_proxy import CallerProxy
from podproof._request.context import get_caller
from podproof._request.denied import denied
from podproof.errors import NoCredential
from podproof.identity import PodIdentity
from podproof.wsgi import PodAuthMiddleware

__all__ = ["PodAuthMiddleware", "caller"]


def _get_identity() -> PodIdentity:
    identity = get_caller(request.environ)
    if identity is None:
        raise denied(NoCredential("the request is anonymous, and its view needs a caller"))
    return identity


caller: PodIdentity = CallerProxy(_get_identity)  # type: ignore[assignment]  # a proxy, as flask.request is
