"""Alice with aiohttp: `BOB_URL=http://bob python examples/callers/aiohttp_alice.py`."""

import asyncio
import os

import aiohttp

from podproof import TokenClient

alice = TokenClient("bob")


async def whoami(url: str) -> str:
    # For each request, not once for the session: the token rotates. Not in a middleware of aiohttp either, which would
    # put it on every redirect.
    async with (
        aiohttp.ClientSession(raise_for_status=True) as http,
        http.get(f"{url}/whoami", headers=alice.headers()) as response,
    ):
        return await response.text()


if __name__ == "__main__":
    print(asyncio.run(whoami(os.environ["BOB_URL"])))
