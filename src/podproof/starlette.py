"""The caller in Starlette: `caller(request)`, a typed `request.user`; `PodAuthBackend` for AuthenticationMiddleware."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "starlette")

from typing import Unpack

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError
from starlette.requests import HTTPConnection
from starlette.responses import Response

from podproof._request.asgi_in_app import InAppAuthenticator
from podproof._request.context import IDENTITY, get_caller
from podproof._request.denied import denied
from podproof._request.problem import HTTPResponse
from podproof._request.setup import MiddlewareOptions
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NoCredential, PodAuthError
from podproof.identity import PodIdentity

__all__ = ["PodAuthBackend", "PodAuthMiddleware", "caller", "on_error"]


def caller(connection: HTTPConnection) -> PodIdentity:
    """Return the `PodIdentity` of the caller of a request or WebSocket.

    Raises NoCredential for an anonymous one, which PodAuthMiddleware turns into a 401 response, and RuntimeError if the
    request did not pass through PodAuthMiddleware.
    """
    identity = get_caller(connection.scope)
    if identity is None:
        raise denied(NoCredential("the request is anonymous, and its endpoint needs a caller"))
    return identity


class PodAuthBackend(AuthenticationBackend):
    """Authenticates pods for Starlette's own AuthenticationMiddleware; `request.user` is the caller's `PodIdentity`.

    `Middleware(AuthenticationMiddleware, backend=PodAuthBackend(audience="bob"), on_error=on_error)`. It takes the
    options of `podproof.asgi.PodAuthMiddleware`. It sees a request and no response: the decision is logged without the
    response's status, what is open does not end with the token, and there is no `current_caller()`. To a WebSocket that
    is denied, Starlette sends no response: it closes it.

    Raises ConfigurationError.
    """

    def __init__(self, **given: Unpack[MiddlewareOptions]) -> None:
        self._authenticator = InAppAuthenticator(given)

    async def authenticate(  # type: ignore[override]  # Starlette's users need not derive from BaseUser
        self, conn: HTTPConnection
    ) -> tuple[AuthCredentials, PodIdentity] | None:
        """Return the caller and its scopes, None for an anonymous one. Raises AuthenticationError to deny."""
        scope = conn.scope
        try:
            caller, peer, recorder = await self._authenticator.authenticate(scope)
        except PodAuthError as denial:
            raise PodDenied(self._authenticator.deny(denial, scope), denial.detail) from None
        identity = scope[IDENTITY] = None if caller is None else caller.identity
        recorder.record_allowed(identity, peer, self._authenticator.read, scope, None)
        return None if identity is None else (scope["auth"], identity)


class PodDenied(AuthenticationError):
    """A request is denied with this response. Its text is safe to send."""

    def __init__(self, response: HTTPResponse, detail: str) -> None:
        super().__init__(detail)
        self.response = response


def on_error(_: HTTPConnection, error: AuthenticationError) -> Response:
    """Return the response of PodAuthMiddleware to a request that is denied: the `on_error` of AuthenticationMiddleware.

    Raises an error that is another backend's.
    """
    if not isinstance(error, PodDenied):
        raise error
    status, headers, body = error.response
    return Response(body, status, dict(headers))
