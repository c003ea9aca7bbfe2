"""One MCP server, made with the `mcp` SDK and with FastMCP, each behind podproof."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import fastmcp
from fastmcp.server.dependencies import get_access_token as fastmcp_access_token
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage
from starlette.applications import Starlette

from podproof import current_caller, require


class CountingEventStore(EventStore):
    """Keeps all events in one list, as the SDK's example does; an ID is a number, which is easy to guess."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not last_event_id.isdigit() or int(last_event_id) >= len(self._events):
            return None
        stream = self._events[int(last_event_id)][0]
        for number, (name, message) in enumerate(self._events):
            if name == stream and message is not None and number > int(last_event_id):
                await send_callback(EventMessage(message, str(number)))
        return stream


async def whoami() -> str:
    """Return the caller as podproof knows it, and as the SDK and FastMCP do."""
    caller, token, other = current_caller(), get_access_token(), fastmcp_access_token()
    if caller is None:
        return f"nobody {token} {other}"
    assert token is not None
    assert other is not None
    assert (token.client_id, token.subject) == (other.client_id, other.subject)
    assert (token.client_id, token.subject) == (str(caller.service_account), caller.pod.uid)
    return str(caller.pod)


def whoami_in_thread() -> str:
    """Return the caller, in a tool that is not async."""
    return str(current_caller() and current_caller().pod)  # type: ignore[union-attr]


@require("batch/*")
async def batch() -> str:
    """Say something to a service account of the namespace `batch`."""
    return "secret"


TOOLS: tuple[Callable[..., object], ...] = (whoami, whoami_in_thread, batch)


def sdk_app(*tools: Callable[..., object], stateless: bool = False, **given: Any) -> Starlette:
    """Return the app of a server of the `mcp` SDK."""
    server = MCPServer("bob")
    for tool in (*TOOLS, *tools):
        server.add_tool(tool)
    return server.streamable_http_app(stateless_http=stateless, **given)


def fastmcp_app(*tools: Callable[..., object], stateless: bool = False, **given: Any) -> Starlette:
    """Return the app of a FastMCP server."""
    server = fastmcp.FastMCP("bob")
    for tool in (*TOOLS, *tools):
        server.add_tool(tool)
    return server.http_app(stateless_http=stateless, **given)


APPS: Mapping[str, Callable[..., Starlette]] = {"sdk": sdk_app, "fastmcp": fastmcp_app}
