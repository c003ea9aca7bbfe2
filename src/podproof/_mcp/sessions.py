"""The app of an MCP server, with each session bound to the pod that has opened it."""

from __future__ import annotations

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.streamable_http import LAST_EVENT_ID_HEADER, MCP_SESSION_ID_HEADER
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from podproof._mcp.access_token import CallerUser
from podproof._mcp.event_ids import EventIds
from podproof._request.context import CurrentRequest, current_request
from podproof.errors import NotAllowed

STAND_IN = (b"authorization", b"Bearer podproof")
"""What the SDK's own authentication finds in the place of the token. It says nothing: the caller does."""


_LAST_EVENT_ID = LAST_EVENT_ID_HEADER.lower().encode()


class CallerSessions:
    """Runs the app with the caller as the SDK's user, by which the SDK compares a session's owner with each request.

    Whatever else names a session is compared here: a `Last-Event-ID` of another pod or session is denied. Where
    nothing is enforced, the caller is not the SDK's user: it would refuse a session.
    """

    def __init__(self, app: ASGIApp, *, enforce: bool) -> None:
        self._app = app
        self._enforce = enforce
        self._event_ids = EventIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        request = current_request.get()
        if scope["type"] != "http" or request is None:
            await self._app(scope, receive, send)
            return
        user = None
        sent = {name for name, _ in scope["headers"]}
        if request.identity is not None:
            user = CallerUser(request, request.identity)
            if b"authorization" not in sent:
                scope["headers"] = [*scope["headers"], STAND_IN]
            if self._enforce:
                scope["user"] = user
        if self._enforce:
            send = self._bind_events(scope, send, request, resumes=_LAST_EVENT_ID in sent)
        before = auth_context_var.set(user)
        try:
            await self._app(scope, receive, send)
        finally:
            auth_context_var.reset(before)
        if request.denial is not None:
            # A tool was denied, and its response says so with another status than that of a denial.
            request.settle(request.denial.response.status)

    def _bind_events(self, scope: Scope, send: Send, request: CurrentRequest, *, resumes: bool) -> Send:
        """Take the mark off the request's `Last-Event-ID`, and return a `send` that marks the IDs of events.

        Raises NotAllowed.
        """
        pod_uid = "" if request.identity is None else request.identity.pod.uid
        if resumes:
            headers = Headers(scope=scope)
            ids = headers.getlist(LAST_EVENT_ID_HEADER)
            session = headers.get(MCP_SESSION_ID_HEADER, "")
            name = self._event_ids.accept(ids[0], pod_uid, session) if len(ids) == 1 else None
            if name is None:
                raise NotAllowed("the Last-Event-ID is not one that this pod was sent in this session")
            MutableHeaders(scope=scope)[LAST_EVENT_ID_HEADER] = name
        session_of_events: str | None = None

        async def send_marked(message: Message) -> None:
            nonlocal session_of_events
            if message["type"] == "http.response.start":
                sent = Headers(raw=message.get("headers", []))
                if sent.get("content-type", "").startswith("text/event-stream"):
                    session_of_events = sent.get(MCP_SESSION_ID_HEADER, "")
            elif session_of_events is not None and message.get("body"):
                message["body"] = self._event_ids.mark(message["body"], pod_uid, session_of_events)
            await send(message)

        return send_marked
