"""Alice as an agent, with the SDK's client: `BOB_URL=http://bob/mcp python examples/callers/mcp_alice.py`."""

import asyncio
import os

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from podproof import TokenClient


async def whoami(url: str) -> str:
    async with (
        httpx2.AsyncClient(auth=TokenClient("bob").auth) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        result = await client.call_tool("whoami", {})
        return "".join(content.text for content in result.content if content.type == "text")


if __name__ == "__main__":
    print(asyncio.run(whoami(os.environ["BOB_URL"])))
