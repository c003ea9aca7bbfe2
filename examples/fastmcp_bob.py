"""Bob as an MCP server, by FastMCP: `PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.fastmcp_bob:app`."""

from fastmcp import FastMCP

from podproof import require
from podproof.mcp import PodAuthMiddleware

server = FastMCP("bob")
notes: dict[str, list[str]] = {}


@server.tool
async def whoami() -> str:
    return account()


@server.tool
async def add_note(text: str) -> int:
    own = notes.setdefault(account(), [])
    own.append(text)
    return len(own)


@server.tool
@require("default/alice")
async def clear_notes() -> str:
    notes.clear()
    return "cleared"


def account() -> str:
    return str(require("*/*").check().service_account)


app = PodAuthMiddleware(server.http_app())
