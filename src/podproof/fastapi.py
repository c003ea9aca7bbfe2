"""The caller in FastAPI: behind the middleware a parameter `caller: Caller`, or a dependency `PodAuth` of some routes.

Both have a security scheme in the OpenAPI document.
"""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "fastapi")

import math
import time
from collections.abc import AsyncIterator
from typing import Unpack

import anyio
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from podproof._request.asgi_in_app import InAppAuthenticator
from podproof._request.in_app import enter
from podproof._request.lifetime import send_response
from podproof._request.openapi import Caller, scheme_in
from podproof._request.problem import HTTPResponse
from podproof._request.setup import MiddlewareOptions
from podproof.asgi import PodAuthMiddleware
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity

__all__ = ["Caller", "PodAuth", "PodAuthMiddleware"]


class PodAuth(SecurityBase):
    """A dependency that allows only authenticated pods, and returns the caller's `PodIdentity`.

    Use it in the place of the middleware, for some routes: `caller: Annotated[PodIdentity, Depends(pod_auth)]`, or
    `dependencies=[Depends(pod_auth)]`. It takes the options of `PodAuthMiddleware`, and denies with the same responses,
    also a WebSocket, which is closed when the caller's token expires. With `optional`, an anonymous caller is None.

    Raises ConfigurationError.
    """

    def __init__(self, **given: Unpack[MiddlewareOptions]) -> None:
        self._authenticator = InAppAuthenticator(given)
        self.scheme_name, self.model = scheme_in(self._authenticator.pipeline.header.name)

    async def __call__(self, connection: HTTPConnection) -> AsyncIterator[PodIdentity | None]:
        """Yield the caller; end its identity after the response."""
        scope = connection.scope
        # Where Starlette looks for the handlers of an app that has started.
        scope["starlette.exception_handlers"][0].setdefault(_Denied, _respond)
        try:
            allowed = await self._authenticator.authenticate(scope)
        except PodAuthError as denial:
            raise _Denied(self._authenticator.deny(denial, scope)) from None
        request = enter(self._authenticator.pipeline, allowed, scope, self._authenticator.read)
        left = request.ends_at - time.monotonic() if isinstance(connection, WebSocket) else math.inf
        try:
            with anyio.move_on_after(left) as running:
                yield request.identity
            if running.cancelled_caught:
                await _close(connection, "the caller's token has expired")
        except PodAuthError as denial:
            raise _Denied(request.deny(denial).response) from None
        finally:
            request.leave()


class _Denied(Exception):  # not an HTTPException, for which an app may have a handler
    def __init__(self, response: HTTPResponse) -> None:
        super().__init__(response.status)
        self._response = response

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await send_response(self._response, scope, send)


async def _respond(connection: HTTPConnection, denied: _Denied) -> _Denied | None:
    if isinstance(connection, WebSocket) and connection.application_state is not WebSocketState.CONNECTING:
        await _close(connection, "the caller is not allowed here")
        return None
    return denied


async def _close(connection: HTTPConnection, reason: str) -> None:
    if isinstance(connection, WebSocket) and connection.application_state is not WebSocketState.DISCONNECTED:
        await connection.close(1008, reason)
