"""Tokens that could never be accepted: what it takes to refuse one, with nobody asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import jwt

from benchmarks.fakes import ADDRESS, AUDIENCE, CountingAPI, Tokens
from benchmarks.repeats import interleaved, timed
from benchmarks.report import Amount, Row
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.errors import PodAuthError
from podproof.options import Options

TOKENS = 1000
ROUNDS = 21
LIMIT = 40e-6
"""Seconds."""


def rows() -> Iterator[Row]:
    """Measure refusals."""
    api = CountingAPI()
    authenticator = Authenticator(Options(audience=(AUDIENCE,)), TokenReviewVerifier(api, (AUDIENCE,)), PodLookup(api))
    make = Tokens().make
    junk: Mapping[str, Sequence[str]] = {
        "wrong shape": [f"{make()}.A" for _ in range(TOKENS)],
        "another audience": [make(audience="carol") for _ in range(TOKENS)],
        "expired": [make(issued_at=time.time() - 7200) for _ in range(TOKENS)],
    }
    refuse = partial(_refused, authenticator)
    competitors = {name: partial(_run, refuse, tokens) for name, tokens in junk.items()}
    competitors["PyJWT"] = partial(_run, _decode, junk["another audience"])
    repeats = interleaved(competitors, ROUNDS)
    for name in junk:
        seconds = repeats.median(name)
        yield Row(
            f"a junk token refused: {name}; {api.reviews + api.reads} API calls",
            Amount(seconds, "s"),
            "PyJWT's decode without verification",
            Amount(repeats.median("PyJWT"), "s"),
            repeats.ratio(name, "PyJWT"),
            "≤ 40 µs, no API call",
            seconds <= LIMIT and not api.reviews and not api.reads,
        )


def _refused(authenticator: Authenticator, token: str) -> None:
    try:
        authenticator.get_cached(token, ADDRESS) or authenticator.authenticate(token, ADDRESS)
    except PodAuthError:
        return
    raise AssertionError("a junk token was accepted")


def _decode(token: str) -> None:
    jwt.decode(token, options={"verify_signature": False})


def _run(act: Callable[[str], None], tokens: Sequence[str]) -> float:
    def work() -> None:
        for token in tokens:
            act(token)

    return timed(work, len(tokens))
