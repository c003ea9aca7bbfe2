"""Alice with urllib3: `BOB_URL=http://bob python examples/callers/urllib3_alice.py`."""

import os

import urllib3

from podproof import TokenClient

alice = TokenClient("bob")
http = urllib3.PoolManager()


def whoami(url: str) -> str:
    # For each request, not once for the pool: the token rotates.
    response = http.request("GET", f"{url}/whoami", headers=alice.headers())
    if response.status != 200:
        raise RuntimeError(f"Bob responded with {response.status}")
    return response.data.decode()


if __name__ == "__main__":
    print(whoami(os.environ["BOB_URL"]))
