"""Alice with httpx: `BOB_URL=http://bob python examples/callers/httpx_alice.py`."""

import os

import httpx

from podproof import TokenClient

http = httpx.Client(auth=TokenClient("bob").auth, follow_redirects=True)


def whoami(url: str) -> str:
    return http.get(f"{url}/whoami").raise_for_status().text


if __name__ == "__main__":
    print(whoami(os.environ["BOB_URL"]))
