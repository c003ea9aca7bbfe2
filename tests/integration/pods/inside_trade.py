"""Runs inside a pod: trades its token for one that is for an audience, calls a URL with it, and prints both.

Arguments: the audience, and the URL.
"""

import json
import sys

from podproof import TokenClient
from podproof.client import Exchange

audience, url = sys.argv[1:]
client = TokenClient(audience, exchange=Exchange("https://bridge/token", ca_file="/etc/bridge/ca.crt"))
with client.session() as http:
    response = http.get(url, timeout=20)
sent = response.request.headers
key = client._source._state.key._key  # type: ignore[union-attr]
print(
    json.dumps(
        {
            "status": response.status_code,
            "body": response.text,
            "token": client.token(),
            "proof": sent["DPoP"],
            "key": hex(key.private_numbers().private_value),
        }
    )
)
