"""Notes: a FastMCP server where agents keep what they have found out."""

from __future__ import annotations

from fastmcp import Context, FastMCP

from podproof import require
from podproof.mcp import PodAuthMiddleware

server = FastMCP("notes")
notes: list[str] = []


@server.tool
async def add_note(text: str, context: Context) -> int:
    await context.report_progress(len(notes), 100)
    notes.append(text)
    return len(notes)


@server.tool
async def list_notes() -> list[str]:
    return notes


@server.tool
@require("default/curator")
async def clear_notes() -> str:
    notes.clear()
    return "cleared"


@server.resource("notes://latest")
async def latest_note() -> str:
    return notes[-1] if notes else ""


app = PodAuthMiddleware(server.http_app(), audience="notes")
