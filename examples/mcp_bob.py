"""Bob as an MCP server, by the SDK: `PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.mcp_bob:app`."""

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer

from podproof import require
from podproof.mcp import PodAuthMiddleware

server = MCPServer("bob")


@server.tool()
async def whoami() -> str:
    caller, token = require("*/*").check(), get_access_token()
    return f"{caller.service_account} in pod {caller.pod}, for the SDK {token and token.subject}"


@server.tool()
@require("default/alice")
async def restart() -> str:
    return "restarted"


# The Service's name: with its default, the SDK refuses all Host headers but those of the loopback interface.
app = PodAuthMiddleware(server.streamable_http_app(host="bob"))
