"""How long an ASGI connection may last: until its caller's token expires. Its context ends with it."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from podproof._request.context import CurrentRequest, current_request
from podproof._request.problem import Denial, HTTPResponse
from podproof.errors import IdentityEnded, PodAuthError

T = TypeVar("T")

UNTIMED = 60.0
"""Seconds that a token must have left for the first `receive` to go without a timer, which takes 6 µs. What it brings
after the token's end is thrown away, as with a timer."""

_SENT_BY_SERVER = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


async def run_http(  # noqa: PLR0915  two closures on one state
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, ends_at: float, request: CurrentRequest
) -> None:
    """Run the app for one request; after a moment in monotonic seconds, no more of either body passes.

    A response that begins later is sent up to its first chunk, and an end of the body without a further byte passes.
    Files that a server would send by itself, to their end, are not offered to the app.

    Around the server's own `receive` and `send` the context variable is empty: a server may start the next request of
    the connection, a timer or a task in there, which all copy the context.
    """
    started = body_begun = replaced = False
    untimed = time.monotonic() + UNTIMED < ends_at

    async def send_until_end(message: Message) -> None:
        nonlocal started, body_begun, replaced
        if replaced:
            return
        own = None
        kind = message["type"]
        if kind == "http.response.start" and not started:
            started = True
            if request.denial is not None:
                own = request.replacement(message["status"], message.get("headers", ()))
            request.settle(message["status"] if own is None else own.status)
        elif kind == "http.response.body" and (message.get("body") or message.get("more_body")):
            if body_begun and time.monotonic() >= ends_at:
                raise IdentityEnded("the caller's token has expired during the response")
            body_begun = body_begun or bool(message.get("body"))
        current = current_request.get()
        current_request.set(None)
        try:
            if own is None:
                await send(message)
            else:
                replaced = True
                await send_response(own, scope, send)
        finally:
            current_request.set(current)

    async def receive_until_end() -> Message:
        nonlocal untimed
        current = current_request.get()
        current_request.set(None)
        try:
            if untimed:
                untimed = False
                message = await receive()
                if time.monotonic() < ends_at:
                    return message
            else:
                with anyio.move_on_after(ends_at - time.monotonic()):
                    return await receive()
        finally:
            current_request.set(current)
        return {"type": "http.disconnect"}

    extensions = scope.get("extensions")
    if extensions and ends_at != math.inf and not _SENT_BY_SERVER.isdisjoint(extensions):
        scope["extensions"] = {name: value for name, value in extensions.items() if name not in _SENT_BY_SERVER}
    try:
        await app(scope, receive_until_end, send_until_end)
    except PodAuthError as denial:
        if replaced:
            return
        if started:
            raise
        response = request.deny(denial).response
        request.settle(response.status)
        await send_response(response, scope, send)
    except Exception:
        request.settle(HTTPStatus.INTERNAL_SERVER_ERROR)
        raise


async def run_websocket(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, ends_at: float, request: CurrentRequest
) -> None:
    """Run the app until a moment in monotonic seconds, then close the connection with 1008 (RFC 6455 section 7.4.1)."""
    accepted = closed = denied = False

    async def send_and_watch(message: Message) -> None:
        nonlocal accepted, closed
        kind = message["type"]
        if denied:
            return
        if request.denial is not None and _may_be_replaced(message, request):
            await send_denial(request.denial)
            return
        if kind == "websocket.accept":
            accepted = True
            request.settle(HTTPStatus.SWITCHING_PROTOCOLS)
        elif kind == "websocket.close":
            closed = True
            request.settle(HTTPStatus.FORBIDDEN)  # which servers send for it, unless it was accepted
        elif kind == "websocket.http.response.start":
            request.settle(message["status"])
        await _without_request(send, message)

    async def send_denial(denial: Denial) -> None:
        nonlocal closed, denied
        closed = denied = True
        request.settle(denial.response.status)
        if accepted:
            message = {"type": "websocket.close", "code": 1008, "reason": "the caller is not allowed here"}
            await _without_request(send, message)
        else:
            await send_response(denial.response, scope, send)

    async def receive_and_watch() -> Message:
        nonlocal closed
        message = await _without_request(receive)
        closed = closed or message["type"] == "websocket.disconnect"
        return message

    try:
        with anyio.move_on_after(ends_at - time.monotonic()) as running:
            await app(scope, receive_and_watch, send_and_watch)
    except PodAuthError as error:
        denial = request.deny(error)
        if closed:
            request.settle(denial.response.status)
        else:
            await send_denial(denial)
        return
    if running.cancelled_caught and not closed:
        await send({"type": "websocket.close", "code": 1008, "reason": "the caller's token has expired"})


def _may_be_replaced(message: Message, request: CurrentRequest) -> bool:
    """Return True if a message is what a framework makes of a denial: a close, or a response to the handshake."""
    if message["type"] == "websocket.http.response.start":
        return request.replacement(message["status"], message.get("headers", ())) is not None
    return bool(message["type"] == "websocket.close")


async def _without_request(call: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Call the server with an empty context variable, as `run_http` does."""
    current = current_request.get()
    current_request.set(None)
    try:
        return await call(*arguments)
    finally:
        current_request.set(current)


async def send_response(response: HTTPResponse, scope: Scope, send: Send) -> None:
    """Send a response; to a WebSocket by the denial response extension, else by closing before it is accepted."""
    kind = "http"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http"
    headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
    await send({"type": f"{kind}.response.start", "status": response.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": response.body})
