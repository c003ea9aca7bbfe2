"""The caller, as Litestar likes to be told: a dependency, and a scheme in the OpenAPI document."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "litestar")

from copy import copy
from typing import Any

from litestar import Response
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import SkipValidation
from litestar.plugins import InitPlugin

from podproof._request.context import deny, get_caller
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NoCredential, PodAuthError
from podproof.identity import PodIdentity

__all__ = ["Caller", "CallerPlugin", "PodAuthMiddleware"]

Caller = NamedDependency[SkipValidation[PodIdentity]]
"""Who is calling, for a handler's parameter `caller`: a `PodIdentity`."""

_SCHEME = SecurityScheme(
    type="http", scheme="bearer", bearer_format="JWT", description="The caller's service-account token."
)


class CallerPlugin(InitPlugin):
    """Hands the caller to each handler that has a parameter `caller: Caller`, and documents the scheme.

    Where nobody is known (an `optional` or `exempt` request), such a handler's answer is 401. A PodAuthError that a
    handler raises is answered as the PodAuthMiddleware would.

    That one goes around the app, not into its `middleware`: there it would run after the routing, once for each route,
    and what Litestar has read of the headers by then (for CORS) would keep the token.
    """

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the dependency, the scheme and the answer."""
        app_config.dependencies["caller"] = Provide(_provide_caller, sync_to_thread=False)
        app_config.exception_handlers[PodAuthError] = _answer
        if app_config.openapi_config is not None:
            app_config.openapi_config = document = copy(app_config.openapi_config)
            theirs = document.components if isinstance(document.components, list) else [document.components]
            document.components = [*theirs, Components(security_schemes={"podproof": _SCHEME})]
            document.security = [*(document.security or ()), {"podproof": []}]
        return app_config


def _provide_caller(request: ASGIConnection[Any, Any, Any, Any]) -> PodIdentity:
    identity = get_caller(request.scope)
    if identity is None:
        raise NoCredential("nobody is known on this request, and its handler asks who it is")
    return identity


def _answer(_: ASGIConnection[Any, Any, Any, Any], refusal: PodAuthError) -> Response[bytes]:
    status, headers, body = deny(refusal)
    return Response(body, status_code=status, headers=dict(headers))
