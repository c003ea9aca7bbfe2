"""`PodAuthMiddleware` for ASGI apps: Starlette, FastAPI, Quart, Litestar, Django."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "asgi")

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Unpack

import anyio
import anyio.lowlevel
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import ASGIApp, Receive, Scope, Send

from podproof._request.asgi_request import ADDRESSES, LONGEST, MAX_HEADERS, decide, read_request
from podproof._request.context import IDENTITY, CurrentRequest, DecisionRecorder, current_request
from podproof._request.lifetime import run_http, run_websocket, send_response
from podproof._request.routing import Routing
from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof._telemetry import traces
from podproof.errors import ConfigurationError, PodAuthError
from podproof.options import signature

if TYPE_CHECKING:
    from podproof._request.pipeline import RequestPipeline

__all__ = ["IDENTITY", "PodAuthMiddleware"]

AnyASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI app, whatever its framework calls the types of the three."""

_REQUESTS = frozenset({"http", "websocket"})


class PodAuthMiddleware:
    """Allows only requests and WebSockets of authenticated pods, and tells the app which pod is calling.

    Sets `scope["user"]` to the caller's `PodIdentity` and `scope["auth"]` to its scopes, so that Starlette's own
    `request.user` and `@requires` work, and takes the header with the token off; on an exempt request user and auth are
    Starlette's anonymous ones, and the header stays. The identity is also in `scope["podproof.identity"]`, where no
    other middleware's user takes its place. Options are those of `podproof.options.Options`, or PODPROOF_<NAME> in the
    environment; `authenticator` takes the place of the one that asks the API server.

    When the caller's token expires, so does the connection: a WebSocket is closed with 1008, a response that is still
    being sent is broken off. A PodAuthError that the app raises before it starts a response becomes the response.

    Raises ConfigurationError; made on an event loop, as Starlette makes its middleware, it fails the lifespan instead.
    """

    __signature__ = signature()

    def __init__(self, app: AnyASGIApp, **given: Unpack[MiddlewareOptions]) -> None:
        self.app: ASGIApp = app
        self._routing = Routing(app)
        self._pipeline: RequestPipeline | None = None
        self._error: ConfigurationError | None = None
        try:
            self._pipeline = pipeline = self._build_pipeline(given)
            self._watched = ADDRESSES | pipeline.header.names
            self._read = partial(read_request, header=pipeline.header)
        except ConfigurationError as error:
            if not _on_event_loop():
                raise
            # Servers take an exception in the lifespan for an app without one, and start: the message goes that way.
            self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        kind = scope["type"]
        pipeline = self._pipeline
        if pipeline is None or kind not in _REQUESTS:
            await self._handle_other(scope, receive, send)
            return
        headers = [*scope["headers"]]
        recorder: DecisionRecorder = pipeline
        caller = key = None
        # Port 0 is uvicorn's mark of an address from a header; a socket's peer has a port.
        peer, port = scope.get("client") or (None, None)
        index = _credential_index(headers, pipeline.header.exact, self._watched) if IDENTITY not in scope else -1
        if index >= 0 and len(headers[index][1]) <= LONGEST and port != 0:
            key = sha256(headers[index][1]).digest()
            caller = pipeline.get_known(key, peer if pipeline.compares_addresses else None)
        if caller is not None and not pipeline.checks_paths:
            if not pipeline.keep_authorization:
                del headers[index]
        else:
            try:
                caller, peer, recorder = await decide(pipeline, self._routing, scope, key, caller)
            except PodAuthError as denial:
                await send_response(pipeline.record_denied(denial, self._read(scope)), scope, send)
                return
            if caller is not None and not pipeline.keep_authorization:
                headers = [header for header in headers if header[0] not in pipeline.header.names]
        # In place, as Starlette's own does: those around us must not see the token either.
        scope["headers"] = headers
        request = CurrentRequest()
        request.recorder, request.read, request.source, request.peer = recorder, self._read, scope, peer
        request.denial, request.settled = None, False
        ends_at = math.inf
        if caller is None:
            # A user whom the app's own authentication around us has set stays, one of another PodAuthMiddleware not.
            if not pipeline.passes_others or "user" not in scope or IDENTITY in scope:
                scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
            scope[IDENTITY] = request.identity = None
        else:
            scope[IDENTITY] = scope["user"] = request.identity = caller.identity
            # Made for each request: the list in it is the app's to change.
            scope["auth"] = AuthCredentials(caller.scopes)
            ends_at = time.monotonic() + caller.ends_at - pipeline.monotonic()
            if traces.INSTALLED and traces.get_current_span().is_recording():
                traces.set_caller_attributes(caller.identity)
        before = current_request.set(request)
        try:
            run = run_http if kind == "http" else run_websocket
            await run(self.app, scope, receive, send, ends_at=ends_at, request=request)
        finally:
            request.end(None)
            current_request.reset(before)

    def _build_pipeline(self, given: MiddlewareOptions) -> RequestPipeline:
        """Return the pipeline. What a subclass has to validate, it validates here, where an error stops the start."""
        return build_pipeline(given)

    async def _handle_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the lifespan; fail whatever is neither that nor a request, and all if an option is wrong."""
        if scope["type"] == "lifespan" and self._error is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"podproof: {self._error}"})
        elif scope["type"] == "lifespan" and self._pipeline is not None:
            self._pipeline.begin()
            await self.app(scope, receive, send)
        elif self._error is not None:
            raise self._error
        else:
            raise RuntimeError(f"unknown ASGI scope type {scope['type']!r}: expected http, websocket or lifespan")


def _credential_index(headers: Sequence[tuple[bytes, bytes]], credential: bytes, watched: frozenset[bytes]) -> int:
    """Return the index of the one header with the credential, -1 if there is not one, or another watched one."""
    found = -1
    if len(headers) > MAX_HEADERS:
        return -1
    for index, (name, _) in enumerate(headers):
        if name in watched:
            if found >= 0 or name != credential:
                return -1
            found = index
    return found


def _on_event_loop() -> bool:
    try:
        anyio.lowlevel.current_token()
    except RuntimeError:
        return False
    return True
