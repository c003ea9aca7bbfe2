"""An MCP server of the SDK, bare and behind podproof. Each call is a session of its own: the least that one costs."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from starlette.types import ASGIApp

from benchmarks import AUDIENCE, leave_out_extras


def bare() -> ASGIApp:
    """Return the app."""
    server = MCPServer("bob", log_level="WARNING")
    server.add_tool(_hello, name="hello")
    return server.streamable_http_app(stateless_http=True, json_response=True)


def podproof() -> ASGIApp:
    """Return it behind podproof without metrics and traces."""
    leave_out_extras()
    from podproof.mcp import PodAuthMiddleware  # noqa: PLC0415  without what is left out

    return PodAuthMiddleware(bare(), audience=AUDIENCE)


async def _hello() -> str:
    return "hello"
