"""`PodAuthMiddleware` for ASGI apps: Starlette, FastAPI, Quart, Litestar, Django."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, Unpack

import anyio
import anyio.lowlevel
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from podproof._request.context import IDENTITY, Deny, current_request
from podproof._request.pipeline import MiddlewareOptions, RequestPipeline
from podproof._request.problem import Answer
from podproof._telemetry.decision_log import RequestRecord as Request
from podproof.errors import IdentityEnded, PodAuthError
from podproof.identity import PodIdentity

T = TypeVar("T")

AnyASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI app, whatever its framework calls the types of the three."""


class PodAuthMiddleware:
    """Lets in only requests and WebSockets whose caller is known, and says who it is.

    Sets `scope["user"]` to the caller's `PodIdentity` and `scope["auth"]` to its scopes, so that Starlette's own
    `request.user` and `@requires` work; on a request that is open to all, to Starlette's anonymous ones. The identity
    is also in `scope["podproof.identity"]`, where no other middleware's user takes its place. The Authorization header
    is taken off. Options are those of `podproof.options.Options`; instead of them an `authenticator` may be given.

    When the caller's token expires, so does the connection: a WebSocket is closed with 1008, a response that is still
    being sent is broken off. A PodAuthError that the app raises before it answers is answered here.

    Raises ConfigurationError.
    """

    def __init__(self, app: AnyASGIApp, **given: Unpack[MiddlewareOptions]) -> None:
        self.app: ASGIApp = app
        self._gate = RequestPipeline(given)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection; `lifespan` and whatever else is no request passes through."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            identity = await self._identify(scope)
        except PodAuthError as refusal:
            await _send_answer(self._refuse(scope, refusal), scope, send)
            return
        # In place, as Starlette's own does: those around us must not see the token either.
        if not self._gate.keep_authorization:
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"authorization"]
        scope[IDENTITY] = identity
        if identity is None:
            scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
        else:
            scope["user"], scope["auth"] = identity, AuthCredentials(identity.scopes)
        refuse = partial(self._refuse, scope)
        before = current_request.set((identity, refuse))
        try:
            seconds = self._gate.authenticator.seconds_left(identity) if identity else math.inf
            run = _run_http if scope["type"] == "http" else _run_websocket
            await run(self.app, scope, receive, send, seconds=seconds, refuse=refuse)
        finally:
            current_request.reset(before)

    async def _identify(self, scope: Scope) -> PodIdentity | None:
        authorization, x_forwarded_for, forwarded = [], [], []
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization.append(value.decode("latin-1"))
            elif name == b"x-forwarded-for":
                x_forwarded_for.append(value.decode("latin-1"))
            elif name == b"forwarded":
                forwarded.append(value.decode("latin-1"))
        gate = self._gate
        path, raw_path = (_route_path(scope), _raw_path(scope)) if gate.judges_paths else ("", None)
        host, port = scope.get("client") or (None, None)
        question = gate.question(
            path=path,
            raw_path=raw_path,
            authorization=authorization,
            remote=host,
            x_forwarded_for=x_forwarded_for,
            forwarded=forwarded,
            rewritten=port == 0,  # uvicorn's mark of an address from a header; a socket's peer has a port
        )
        identity = peer = None
        if question is not None:
            token, peer = question
            authenticator, seconds = gate.authenticator, gate.authenticator.options.timeout
            identity = authenticator.recall(token, peer)
            if identity is None:
                outcome = await _land(authenticator.ask(token, peer), seconds)
                identity = authenticator.conclude(outcome or authenticator.too_late(), peer)
            if gate.judges_paths:
                # The handshake of a WebSocket is a GET (RFC 6455 section 4.1).
                flight = gate.permit(identity, peer, method=scope.get("method", "GET"), path=path, raw_path=raw_path)
                if flight is not None:
                    verdict = await _land(flight, seconds)
                    gate.conclude(verdict, identity, peer)
        gate.admit(identity, peer, _request, scope)
        return identity

    def _refuse(self, scope: Scope, refusal: PodAuthError) -> Answer:
        return self._gate.refuse(refusal, _request(scope))


async def _run_http(app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, seconds: float, refuse: Deny) -> None:
    """Run the app; `seconds` from now, the caller neither gets nor gives any more of a body."""
    end = time.monotonic() + seconds
    started = begun = False

    async def send_in_time(message: Message) -> None:
        nonlocal started, begun
        if begun and time.monotonic() >= end:
            raise IdentityEnded("the caller's token has expired during the response")
        started, begun = True, message["type"] == "http.response.body"
        await send(message)

    async def receive_in_time() -> Message:
        with anyio.move_on_after(end - time.monotonic()):
            return await receive()
        return {"type": "http.disconnect"}

    try:
        await app(scope, receive_in_time, send_in_time)
    except PodAuthError as refusal:
        if started:
            raise
        await _send_answer(refuse(refusal), scope, send)


async def _run_websocket(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, seconds: float, refuse: Deny
) -> None:
    """Run the app for at most so many seconds, then close the connection with 1008 (RFC 6455 section 7.4.1)."""
    accepted = closed = False

    async def send_and_note(message: Message) -> None:
        nonlocal accepted, closed
        accepted = accepted or message["type"] == "websocket.accept"
        closed = closed or message["type"] == "websocket.close"
        await send(message)

    async def receive_and_note() -> Message:
        nonlocal closed
        message = await receive()
        closed = closed or message["type"] == "websocket.disconnect"
        return message

    try:
        with anyio.move_on_after(seconds) as running:
            await app(scope, receive_and_note, send_and_note)
    except PodAuthError as refusal:
        answer = refuse(refusal)
        if accepted and not closed:
            await send({"type": "websocket.close", "code": 1008, "reason": "the caller is not allowed here"})
        elif not closed:
            await _send_answer(answer, scope, send)
        return
    if running.cancelled_caught and not closed:
        await send({"type": "websocket.close", "code": 1008, "reason": "the caller's token has expired"})


def _request(scope: Scope) -> Request:
    traceparent = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
    client = scope.get("client")
    return Request(
        method=scope.get("method", "WEBSOCKET"),
        path=scope["path"],
        remote=client[0] if client else None,
        traceparent=traceparent.decode("latin-1"),
    )


def _raw_path(scope: Scope) -> str | None:
    """Return the path as it was sent, before decoding, where the server tells."""
    raw_path: bytes | None = scope.get("raw_path")
    return raw_path.decode("latin-1") if raw_path else None


def _route_path(scope: Scope) -> str:
    """Return the path as the wrapped app's routes see it: what is below the path that the app is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and (path == root or path.startswith(f"{root}/")) else path


async def _land(flight: Future[T], seconds: float) -> T | None:
    """Wait for a flight without holding a thread; None when the time is up. The flight goes on if we are cancelled."""
    landed = anyio.Event()
    call = _caller_from_threads()

    def wake(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and we with it
            call(landed.set)

    flight.add_done_callback(wake)
    with anyio.move_on_after(seconds):
        await landed.wait()
    return flight.result() if flight.done() else None


def _caller_from_threads() -> Callable[[Callable[[], None]], object]:
    """Return what hands a call from any thread to the event loop that runs here: asyncio's or trio's own."""
    loop: Any = anyio.lowlevel.current_token().native_token
    call: Callable[[Callable[[], None]], object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    return call


async def _send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer; to a WebSocket by the denial response extension, else by closing before it is accepted."""
    kind = "http"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http"
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
    await send({"type": f"{kind}.response.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": answer.body})
