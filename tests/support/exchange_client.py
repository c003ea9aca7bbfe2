"""A token exchange on a fake API server, its directory of keys, and a client that asks it for tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from httpx2 import Response
from starlette.testclient import TestClient

from podproof._authentication.authenticator import Authenticator
from podproof.exchange import Grant, TokenExchange
from podproof.exchange.token_request import CLIENT_ASSERTION_TYPE, JWT_TYPE, TOKEN_EXCHANGE
from tests.support.fake_api import PEER, Clock, token
from tests.support.signed_tokens import PrivateKey, make_key

ISSUER = "https://bridge.example"
SECRET = b"a secret of more than thirty-two bytes"
LEDGER = Grant(audience="ledger", allow=["default/alice"], scopes=["read", "write"], introspect=["default/*"])


def pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_keys(
    directory: Path, *names: str, algorithm: str = "ES256", secrets: Mapping[str, bytes] | None = None
) -> Path:
    """Write the keys of these names (`make_key`), and secrets by file name, into a directory, and return it."""
    directory.mkdir(exist_ok=True)
    for name in names or ("1",):
        (directory / f"{name}.pem").write_bytes(pem(make_key(algorithm, name)))
    for name, secret in (secrets or {}).items():
        (directory / name).write_bytes(secret)
    return directory


class ExchangeClient:
    """Calls an exchange from Alice's address, by default with her token."""

    def __init__(self, authenticator: Authenticator, keys: Path, clock: Clock, **given: Any) -> None:
        arguments: dict[str, Any] = {"issuer": ISSUER, "keys": keys, "grants": [LEDGER]} | given
        if "grants_file" in arguments:
            del arguments["grants"]
        self.app = TokenExchange(authenticator=authenticator, now=clock, monotonic=clock, **arguments)
        self.clock = clock

    def post(self, path: str, *, peer: str = PEER, **more: Any) -> Response:
        return TestClient(self.app, client=(peer, 4711)).post(path, **more)

    def get(self, path: str) -> Any:
        return TestClient(self.app).get(path).json()

    def exchange(self, *, peer: str = PEER, headers: Mapping[str, str] | None = None, **changes: Any) -> Response:
        """Ask for a token by RFC 8693; None removes a parameter."""
        form: dict[str, Any] = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": token(),
            "subject_token_type": JWT_TYPE,
            "audience": "ledger",
        }
        form = {name: value for name, value in (form | changes).items() if value is not None}
        return self.post("/token", data=form, headers=headers, peer=peer)

    def issue(self, **changes: Any) -> str:
        """Return a token that was issued."""
        response = self.exchange(**changes)
        assert response.status_code == 200, response.text
        issued: str = response.json()["access_token"]
        return issued

    def claims(self, issued: str, audience: str = "ledger") -> dict[str, Any]:
        """Return the claims of an issued token, verified as any service would, but for the time."""
        keys = jwt.PyJWKSet.from_dict(self.get("/jwks.json"))
        key = keys[jwt.get_unverified_header(issued)["kid"]]
        options: Any = {"verify_exp": False, "verify_iat": False}
        claims: dict[str, Any] = jwt.decode(
            issued, key, algorithms=["ES256", "EdDSA"], audience=audience, issuer=ISSUER, options=options
        )
        return claims

    def introspect(self, issued: str, **more: Any) -> Response:
        headers = {"Authorization": f"Bearer {token()}"}
        return self.post("/introspect", data={"token": issued}, **{"headers": headers} | more)


def client_assertion(assertion: str) -> dict[str, str]:
    """Return the parameters by which a client authenticates with a token."""
    return {"client_assertion": assertion, "client_assertion_type": CLIENT_ASSERTION_TYPE}
