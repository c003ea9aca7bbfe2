"""Alice with aiohttp: `BOB_URL=http://bob python examples/callers/aiohttp_alice.py`."""

import asyncio
import os

import aiohttp

from podproof import TokenClient

alice = TokenClient("bob")


async def whoami(url: str) -> str:
    # With each request, and not once for the session: the token rotates. Nor in a middleware of aiohttp's, which would
    # put it on every redirect too.
    async with (
        aiohttp.ClientSession(raise_for_status=True) as http,
        http.get(f"{url}/whoami", headers=alice.headers()) as answer,
    ):
        return await answer.text()


if __name__ == "__main__":
    print(asyncio.run(whoami(os.environ["BOB_URL"])))
