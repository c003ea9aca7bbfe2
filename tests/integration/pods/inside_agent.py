"""Runs inside a pod: calls the tool `whoami` of an MCP server with an issued token, twice in one session."""

import asyncio

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from podproof import TokenClient
from podproof.client import Exchange

auth = TokenClient("tools", exchange=Exchange("https://bridge/token", ca_file="/etc/bridge/ca.crt")).auth


async def main() -> None:
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client("http://tools/mcp", http_client=http)) as client,
    ):
        for _ in range(2):
            result = await client.call_tool("whoami", {})
            print(*(content.text for content in result.content if content.type == "text"))


asyncio.run(main())
