"""MCP servers of the `mcp` SDK and of FastMCP, over streamable HTTP: the caller in each tool, and its own sessions."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "mcp")

from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Unpack

from mcp.server.auth.provider import AccessToken, TokenVerifier
from starlette.types import Receive, Scope, Send

from podproof import asgi
from podproof._mcp.access_token import current_access_token
from podproof._mcp.resource_metadata import ResourceMetadata
from podproof._mcp.sessions import CallerSessions
from podproof._request.paths import path_below
from podproof._request.setup import MiddlewareOptions
from podproof.asgi import AnyASGIApp
from podproof.exchange import asgi as exchange
from podproof.exchange.issued_tokens import issued_signature
from podproof.options import signature

if TYPE_CHECKING:
    from podproof._request.pipeline import RequestPipeline
    from podproof.exchange.issued_tokens import IssuedTokenArguments

__all__ = ["IssuedTokenMiddleware", "PodAuthMiddleware", "PodTokenVerifier"]


def _with_resource(common: Signature) -> Signature:
    own = Parameter("resource", Parameter.KEYWORD_ONLY, annotation="str | None", default=None)
    return common.replace(parameters=[*common.parameters.values(), own])


class PodAuthMiddleware(asgi.PodAuthMiddleware):
    """The middleware of `podproof.asgi` for an MCP server's app: each session belongs to the pod that has opened it.

    In a tool, `podproof.current_caller()` is the pod that calls it, until its request has ended, and the SDK's
    `get_access_token()` is its access token: the client is the service account, the subject the pod's UID. Another pod
    that names a session or an event of it gets the response of one that does not exist, or is denied.

    `resource` is the server's URL as its clients know it. With it, there is metadata for the protected resource
    (RFC 9728), open to all, and each challenge names its URL; its authorization servers are the option `issuers`.
    """

    __signature__ = _with_resource(signature())

    def __init__(self, app: AnyASGIApp, *, resource: str | None = None, **given: Unpack[MiddlewareOptions]) -> None:
        self._resource = resource
        self._metadata: ResourceMetadata | None = None
        super().__init__(app, **given)
        self.app = CallerSessions(app, enforce=self._pipeline is None or self._pipeline.enforces)

    def _build_pipeline(self, given: MiddlewareOptions) -> RequestPipeline:
        pipeline = super()._build_pipeline(given)
        if self._resource is not None:
            self._metadata = ResourceMetadata(self._resource, pipeline.issuers, pipeline.schemes)
        return pipeline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if self._metadata is not None and scope["type"] == "http":
            if path_below(scope["path"], scope.get("root_path", "")) == self._metadata.path:
                await self._metadata.response(scope, receive, send)
                return
            send = self._metadata.in_challenges(send)
        await super().__call__(scope, receive, send)


class IssuedTokenMiddleware(PodAuthMiddleware, exchange.IssuedTokenMiddleware):
    """The same for agents with tokens of a token exchange, with the options that it has in `podproof.exchange.asgi`.

    The metadata names the exchange as the authorization server. The SDK's access token has the issued token's scopes
    besides those of the pod, and its `sub` and `act` among the claims.
    """

    __signature__ = _with_resource(issued_signature())

    if TYPE_CHECKING:

        def __init__(
            self, app: AnyASGIApp, *, resource: str | None = None, **given: Unpack[IssuedTokenArguments]
        ) -> None: ...


class PodTokenVerifier(TokenVerifier):
    """The `token_verifier` of a server with the SDK's own `auth`, inside PodAuthMiddleware: it verifies nothing itself.

    A request of a pod has the caller's access token. All other tokens are for `others`, without which there are none.
    """

    def __init__(self, others: TokenVerifier | None = None) -> None:
        self._others = others

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the access token of the current request's caller, or what `others` returns."""
        caller = current_access_token()
        return await self._others.verify_token(token) if caller is None and self._others is not None else caller
