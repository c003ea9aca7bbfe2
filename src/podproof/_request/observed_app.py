"""The status of responses to requests that are judged inside an app, which does not tell it there."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from podproof._request.in_app import InAppRequest

_JUDGED = "podproof.judged"


class ObservedApp:
    """The middlewares of a Starlette app, observed: they log requests that are judged within, and end them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        judged: list[InAppRequest] = []
        scope[_JUDGED] = judged

        async def send_and_observe(message: Message) -> None:
            status = _status_in(message)
            if status is not None:
                for request in judged:
                    request.settle(status)
            await send(message)

        try:
            await self._app(scope, receive, send_and_observe)
        finally:
            for request in judged:
                request.end(None)


def end_with_response(scope: Scope, request: InAppRequest) -> bool:
    """Return True if a request is logged with its response, and ended after it; False if the caller has to end it.

    An app is observed from the second request on: the first one has passed its middlewares already.
    """
    app: Any = scope.get("app")
    if _JUDGED in scope:
        scope[_JUDGED].append(request)
        return True
    if isinstance(getattr(app, "middleware_stack", None), ObservedApp | None):
        return False
    app.middleware_stack = ObservedApp(app.middleware_stack)
    return False


def _status_in(message: Message) -> int | None:
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return int(message["status"])
        case "websocket.accept":
            return HTTPStatus.SWITCHING_PROTOCOLS
        case "websocket.close":
            return HTTPStatus.FORBIDDEN  # which servers send for it, unless it was accepted
    return None
