"""Alice with requests: `BOB_URL=http://bob python examples/callers/requests_alice.py`."""

import os

from podproof import TokenClient

http = TokenClient("bob").session()


def whoami(url: str) -> str:
    response = http.get(f"{url}/whoami", timeout=10)
    response.raise_for_status()
    return response.text


if __name__ == "__main__":
    print(whoami(os.environ["BOB_URL"]))
