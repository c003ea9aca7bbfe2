"""Alice with urllib3: `BOB_URL=http://bob python examples/callers/urllib3_alice.py`."""

import os

import urllib3

from podproof import TokenClient

alice = TokenClient("bob")
http = urllib3.PoolManager()


def whoami(url: str) -> str:
    # With each request, and not once for the pool: the token rotates.
    answer = http.request("GET", f"{url}/whoami", headers=alice.headers())
    if answer.status != 200:
        raise RuntimeError(f"Bob answered {answer.status}")
    return answer.data.decode()


if __name__ == "__main__":
    print(whoami(os.environ["BOB_URL"]))
