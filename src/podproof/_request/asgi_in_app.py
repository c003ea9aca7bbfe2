"""ASGI requests and WebSockets that are judged inside an app: by FastAPI's dependency and Starlette's backend."""

from __future__ import annotations

from functools import partial

from starlette.authentication import AuthCredentials
from starlette.types import Scope

from podproof._request.asgi_request import decide, read_request
from podproof._request.credential import CredentialHeader
from podproof._request.flow import Allowed
from podproof._request.pipeline import RequestPipeline
from podproof._request.problem import HTTPResponse
from podproof._request.routing import LatestRouting
from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof.errors import PodAuthError


class InAppAuthenticator:
    """Decides on the requests of one part of an app. Raises ConfigurationError for a wrong option."""

    def __init__(self, given: MiddlewareOptions) -> None:
        self.pipeline: RequestPipeline = build_pipeline(given)
        self.read = partial(read_request, header=self.pipeline.header)
        self._routing = LatestRouting()

    async def authenticate(self, scope: Scope) -> Allowed:
        """Return who a scope is allowed for, and take the token off it. Raises a PodAuthError to deny.

        The path is judged as a middleware around the app would judge it, whatever mounts the request has gone through.
        """
        routing = self._routing.of_app(scope.get("app"))
        root = scope.get("app_root_path", scope.get("root_path", ""))
        allowed = await decide(self.pipeline, routing, {**scope, "root_path": root}, None, None)
        if allowed.caller is not None:
            if not self.pipeline.keep_authorization:
                _take_token_off(scope, self.pipeline.header)
            scope["user"], scope["auth"] = allowed.caller.identity, AuthCredentials(allowed.caller.scopes)
        return allowed

    def deny(self, denial: PodAuthError, scope: Scope) -> HTTPResponse:
        """Log a denial, and return its response."""
        return self.pipeline.record_denied(denial, self.read(scope))


def _take_token_off(scope: Scope, header: CredentialHeader) -> None:
    headers = [(name, value) for name, value in scope["headers"] if name not in header.names]
    if isinstance(scope["headers"], list):
        scope["headers"][:] = headers  # a Request whose headers were read before has this very list
    else:
        scope["headers"] = headers
