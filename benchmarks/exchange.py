"""A token exchange: exchanges for a known caller, beside the signature alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import jwt

from benchmarks import AUDIENCE
from benchmarks.repeats import interleaved, timed
from benchmarks.report import Amount, Measurement
from podproof.exchange import Grant, TokenExchange
from podproof.exchange.token_request import JWT_BEARER
from podproof.options import Options
from tests.support.exchange_client import write_keys
from tests.support.fake_api import PEER, ClaimsAPI, TokenFactory, authenticator_for
from tests.support.signed_tokens import make_key

ROUNDS = 15
EXCHANGES = 100


def rows() -> Iterator[Measurement]:
    """Measure exchanges for a known caller, in this process and without a socket."""
    with (
        TemporaryDirectory() as folder,
        closing(authenticator_for(ClaimsAPI(), Options(audience=(AUDIENCE,), cache_ttl=3600))) as authenticator,
        asyncio.Runner() as runner,
    ):
        keys = write_keys(Path(folder) / "keys")
        grants = [Grant(audience="ledger", allow=["*/*"])]
        app = TokenExchange(issuer="https://bridge", keys=keys, grants=grants, authenticator=authenticator)
        body = urlencode({"grant_type": JWT_BEARER, "assertion": TokenFactory()(audience=AUDIENCE)}).encode()

        async def exchange() -> None:
            for _ in range(EXCHANGES):
                await _send(app, body)

        def sign() -> None:
            for _ in range(EXCHANGES):
                jwt.encode({"sub": "x" * 400}, make_key("ES256", "1"), algorithm="ES256")

        runner.run(exchange())
        repeats = interleaved(
            {
                "podproof": lambda: timed(lambda: runner.run(exchange()), EXCHANGES),
                "signature": lambda: timed(sign, EXCHANGES),
            },
            ROUNDS,
        )
    taken = repeats.median("podproof")
    yield Measurement(
        "exchanges a second for a known caller, one core, without a socket",
        Amount(round(1 / taken), "/s"),
        "the signature alone, by PyJWT",
        Amount(round(1 / repeats.median("signature")), "/s"),
        repeats.ratio("podproof", "signature"),
    )


async def _send(app: TokenExchange, body: bytes) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"the exchange responds with {message['status']}")

    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "path": "/token", "query_string": b"", "headers": headers}
    await app({**scope, "client": (PEER, 4711)}, receive, send)
