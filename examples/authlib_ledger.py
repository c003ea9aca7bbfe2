"""A service that takes issued tokens by Authlib: `ISSUER=https://bridge flask --app examples.authlib_ledger run`."""

import os
from typing import Any

import requests
from authlib.integrations.flask_oauth2 import ResourceProtector, current_token
from authlib.oauth2.rfc6750.errors import InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from cachetools.func import ttl_cache
from flask import Flask
from joserfc.jwk import KeySet

ISSUER = os.environ["ISSUER"]

fetch_keys = ttl_cache(ttl=300)(lambda: KeySet.import_key_set(requests.get(f"{ISSUER}/jwks.json", timeout=5).json()))


class IssuedTokenValidator(JWTBearerTokenValidator):
    def get_jwks(self) -> KeySet:
        return fetch_keys()

    def authenticate_token(self, token_string: str) -> Any:
        token = super().authenticate_token(token_string)
        if "cnf" in token:  # bound to a key: Authlib checks no DPoP proofs
            raise InvalidTokenError
        return token


protect = ResourceProtector()
protect.register_token_validator(IssuedTokenValidator(issuer=ISSUER, resource_server="ledger"))
app = Flask(__name__)


@app.get("/whoami")
@protect()  # type: ignore[untyped-decorator]
def whoami() -> dict[str, str]:
    return {"sub": current_token["sub"], "pod": current_token["kubernetes.io"]["pod"]["name"]}
