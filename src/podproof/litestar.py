"""The caller in Litestar: a handler's parameter `caller: Caller`, with its security scheme in the OpenAPI document."""

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
from podproof._request.denied import denied
from podproof._token.header_name import AUTHORIZATION
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NoCredential, PodAuthError
from podproof.identity import PodIdentity

__all__ = ["Caller", "CallerPlugin", "PodAuthMiddleware"]

Caller = NamedDependency[SkipValidation[PodIdentity]]
"""The type of a handler's parameter `caller`: the `PodIdentity` of the caller."""


class CallerPlugin(InitPlugin):
    """Gives the caller to each handler that has a parameter `caller: Caller`, and documents the security scheme.

    An anonymous request to such a handler is denied with 401. A PodAuthError that a handler raises gets the response of
    PodAuthMiddleware. `header` is that middleware's, for the document alone.

    Put PodAuthMiddleware around the app, not into its `middleware`: there it would run after the routing, once for each
    route, and the headers that Litestar has read by then (for CORS) would still hold the token.
    """

    def __init__(self, header: str = AUTHORIZATION) -> None:
        self._header = header

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the dependency, the exception handler and the security scheme."""
        app_config.dependencies["caller"] = Provide(_provide_caller, sync_to_thread=False)
        app_config.exception_handlers[PodAuthError] = _respond
        if app_config.openapi_config is not None:
            app_config.openapi_config = document = copy(app_config.openapi_config)
            own = document.components if isinstance(document.components, list) else [document.components]
            document.components = [*own, Components(security_schemes={"podproof": _scheme_in(self._header)})]
            document.security = [*(document.security or ()), {"podproof": []}]
        return app_config


def _scheme_in(header: str) -> SecurityScheme:
    what = "the caller's service-account token."
    if header.lower() == AUTHORIZATION.lower():
        return SecurityScheme(type="http", scheme="bearer", bearer_format="JWT", description=what[0].upper() + what[1:])
    description = f"`Bearer`, a blank and {what}"
    return SecurityScheme(type="apiKey", security_scheme_in="header", name=header, description=description)


def _provide_caller(request: ASGIConnection[Any, Any, Any, Any]) -> PodIdentity:
    identity = get_caller(request.scope)
    if identity is None:
        raise denied(NoCredential("the request is anonymous, and its handler needs a caller"))
    return identity


def _respond(_: ASGIConnection[Any, Any, Any, Any], error: PodAuthError) -> Response[bytes]:
    status, headers, body = deny(error)
    return Response(body, status_code=status, headers=dict(headers))
