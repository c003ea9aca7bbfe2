"""Alice with httpx, async: `BOB_URL=http://bob python examples/callers/httpx_async_alice.py`."""

import asyncio
import os

import httpx

from podproof import TokenClient

alice = TokenClient("bob")


async def whoami(url: str) -> str:
    async with httpx.AsyncClient(auth=alice.auth, follow_redirects=True) as http:
        response = await http.get(f"{url}/whoami")
    return response.raise_for_status().text


if __name__ == "__main__":
    print(asyncio.run(whoami(os.environ["BOB_URL"])))
