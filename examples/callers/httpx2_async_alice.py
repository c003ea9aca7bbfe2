"""Alice with httpx2, async: `BOB_URL=http://bob python examples/callers/httpx2_async_alice.py`."""

import asyncio
import os

import httpx2

from podproof import TokenClient

alice = TokenClient("bob")


async def whoami(url: str) -> str:
    async with httpx2.AsyncClient(auth=alice.auth, follow_redirects=True) as http:
        response = await http.get(f"{url}/whoami")
    return response.raise_for_status().text


if __name__ == "__main__":
    print(asyncio.run(whoami(os.environ["BOB_URL"])))
