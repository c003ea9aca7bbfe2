"""Alice with httpx2: `BOB_URL=http://bob python examples/callers/httpx2_alice.py`."""

import os

import httpx2

from podproof import TokenClient

http = httpx2.Client(auth=TokenClient("bob").auth, follow_redirects=True)


def whoami(url: str) -> str:
    return http.get(f"{url}/whoami").raise_for_status().text


if __name__ == "__main__":
    print(whoami(os.environ["BOB_URL"]))
