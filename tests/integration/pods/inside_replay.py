"""Runs inside a pod: sends a stolen token until it is denied, and prints when that was.

Standard input: the URL, the token, the private key that it is bound to, and the seconds for which to send it.
"""

import json
import secrets
import sys
import time

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from jwt.algorithms import ECAlgorithm

from podproof._token.token_hash import token_hash

given = json.load(sys.stdin)
key = derive_private_key(int(given["key"], 16), SECP256R1())
jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
header = {"typ": "dpop+jwt", "jwk": {name: jwk[name] for name in ("kty", "crv", "x", "y")}}
end = time.time() + given["seconds"]
while True:
    claims = {"jti": secrets.token_hex(8), "iat": int(time.time()), "htm": "GET", "htu": given["url"]}
    proof = jwt.encode(claims | {"ath": token_hash(given["token"])}, key, algorithm="ES256", headers=header)
    headers = {"Authorization": f"DPoP {given['token']}", "DPoP": proof}
    response = requests.get(given["url"], headers=headers, timeout=20)
    if response.status_code != 200 or time.time() > end:
        break
    time.sleep(0.02)
print(
    json.dumps(
        {"status": response.status_code, "at": time.time(), "challenge": response.headers.get("WWW-Authenticate")}
    )
)
