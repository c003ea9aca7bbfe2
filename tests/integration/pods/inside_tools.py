"""Runs inside a pod: an MCP server for agents with issued tokens."""

import uvicorn
from mcp.server.mcpserver import MCPServer

from podproof import require
from podproof.mcp import IssuedTokenMiddleware

server = MCPServer("tools")


@server.tool()
async def whoami() -> str:
    return str(require("*/*").check().pod)


app = IssuedTokenMiddleware(
    server.streamable_http_app(host="tools"), issuer="https://bridge", audience="tools", ca_file="/etc/bridge/ca.crt"
)
uvicorn.run(app, host="0.0.0.0", port=8080, proxy_headers=False)
