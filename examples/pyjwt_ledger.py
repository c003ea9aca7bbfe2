"""A service that takes issued tokens by PyJWT alone: `ISSUER=https://bridge uvicorn examples.pyjwt_ledger:app`."""

import os
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

ISSUER = os.environ["ISSUER"]
CLAIMS = ["iss", "aud", "exp", "iat", "sub", "client_id", "jti"]  # RFC 9068 section 2.2
keys = jwt.PyJWKClient(f"{ISSUER}/jwks.json")


def verify(token: str) -> dict[str, Any]:
    key = keys.get_signing_key_from_jwt(token)
    options: Any = {"require": CLAIMS}
    decoded = jwt.decode_complete(
        token, key, algorithms=["ES256", "EdDSA"], audience="ledger", issuer=ISSUER, options=options
    )
    claims: dict[str, Any] = decoded["payload"]
    if decoded["header"].get("typ") != "at+jwt" or "cnf" in claims:  # bound to a key: PyJWT checks no DPoP proofs
        raise jwt.InvalidTokenError("not a bearer access token")
    return claims


def whoami(request: Request) -> Response:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        claims = verify(token if scheme.lower() == "bearer" else "")
    except jwt.PyJWTError:
        return PlainTextResponse("denied\n", 401, headers={"WWW-Authenticate": "Bearer"})
    return JSONResponse({"sub": claims["sub"], "pod": claims["kubernetes.io"]["pod"]["name"]})


app = Starlette(routes=[Route("/whoami", whoami)])
