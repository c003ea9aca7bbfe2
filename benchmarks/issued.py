"""Issued tokens: a known one beside a known projected one, and what a DPoP proof costs beside its signature."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks import AUDIENCE
from benchmarks.repeats import interleaved, timed
from benchmarks.report import Amount, Measurement
from podproof._token.token_hash import token_hash
from podproof.errors import InvalidProof
from podproof.exchange.dpop import DPoPVerifier
from podproof.exchange.wsgi import IssuedTokenMiddleware
from podproof.options import Options
from podproof.wsgi import PodAuthMiddleware
from tests.support.dpop_proofs import URI, make_proof
from tests.support.fake_api import PEER, ClaimsAPI, TokenFactory, authenticator_for
from tests.support.issued_tokens import AUDIENCE as LEDGER
from tests.support.issued_tokens import ISSUER, issued_token, published_keys
from tests.support.signed_tokens import make_key

ROUNDS = 25
REQUESTS = 500
PROOFS = 100
REPLAYS = 10_000
TOKEN = "an.access.token"  # noqa: S105


def rows() -> Iterator[Measurement]:
    """Measure a known caller, proofs, and replays, in this process."""
    yield _known_caller()
    yield from _proofs()


def _known_caller() -> Measurement:
    with (
        TemporaryDirectory() as folder,
        closing(authenticator_for(ClaimsAPI(), Options(audience=(AUDIENCE,), cache_ttl=3600))) as authenticator,
    ):
        jwks = Path(folder) / "jwks.json"
        jwks.write_text(json.dumps(published_keys()))
        issued = IssuedTokenMiddleware(_app, issuer=ISSUER, audience=LEDGER, jwks=str(jwks), dpop="optional")
        projected = PodAuthMiddleware(_app, authenticator=authenticator)
        mine, theirs = issued_token(), TokenFactory()(audience=AUDIENCE)
        repeats = interleaved(
            {
                "issued": lambda: timed(lambda: _call(issued, mine), REQUESTS),
                "projected": lambda: timed(lambda: _call(projected, theirs), REQUESTS),
            },
            ROUNDS,
        )
    ratio = repeats.ratio("issued", "projected")
    return Measurement(
        "a known caller with an issued bearer token, under WSGI",
        Amount(repeats.median("issued"), "s"),
        "with a projected token",
        Amount(repeats.median("projected"), "s"),
        ratio,
        "≤ 1.2x",
        ratio <= 1.2,
    )


def _app(_: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b""]


def _call(app: Any, token: str) -> None:
    def start_response(status: str, _: object) -> None:
        if status != "200 OK":
            raise RuntimeError(f"the app responds with {status}")

    for _ in range(REQUESTS):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": PEER}
        [*app(environ | {"HTTP_AUTHORIZATION": f"Bearer {token}"}, start_response)]


def _proofs() -> Iterator[Measurement]:
    verifier, now = DPoPVerifier(), time.time()
    ids = iter(range(10**9))
    made: list[str] = []
    key: Any = make_key("ES256", "alice")
    signature, public = key.sign(b"signed", ec.ECDSA(SHA256())), key.public_key()

    def make() -> None:
        made[:] = [make_proof({"ath": token_hash(TOKEN), "iat": now, "jti": str(next(ids))}) for _ in range(PROOFS)]

    def verify() -> None:
        for proof in made:
            verifier.verify([proof], method="GET", uris=[URI], access_token=TOKEN)

    def verify_signature() -> None:
        for _ in range(PROOFS):
            public.verify(signature, b"signed", ec.ECDSA(SHA256()))

    def timed_proofs() -> float:
        make()
        return timed(verify, PROOFS)

    repeats = interleaved({"proof": timed_proofs, "signature": lambda: timed(verify_signature, PROOFS)}, ROUNDS)
    taken, floor = repeats.median("proof"), repeats.median("signature")
    yield Measurement(
        "a DPoP proof, verified",
        Amount(taken, "s"),
        "its P-256 signature alone",
        Amount(floor, "s"),
        repeats.ratio("proof", "signature"),
        "≤ 150 µs more",
        taken - floor <= 150e-6,
    )
    accepted = _replays(verifier, made[0])
    yield Measurement(f"of {REPLAYS:,} replays of one proof accepted", Amount(accepted), goal="0", met=accepted == 0)


def _replays(verifier: DPoPVerifier, proof: str) -> int:
    accepted = 0
    for _ in range(REPLAYS):
        try:
            verifier.verify([proof], method="GET", uris=[URI], access_token=TOKEN)
        except InvalidProof:
            continue
        accepted += 1
    return accepted
