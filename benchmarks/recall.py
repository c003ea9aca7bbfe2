"""A known caller: `Authenticator.recall` beside a dict that holds the very tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256

from benchmarks.fakes import ADDRESS, AUDIENCE, CountingAPI, Tokens
from benchmarks.repeats import interleaved, timed
from benchmarks.report import Amount, Row
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.options import Options

CALLERS = 1000
ROUNDS = 31
PASSES = 10

Recall = Callable[[str, str], object]


def rows() -> Iterator[Row]:
    """Measure a known caller."""
    make = Tokens().make
    # A request's token is always a new string, cut out of its header: a string that is asked for twice has kept its
    # hash, and would flatter the dict.
    headers = [f"Bearer {make()}" for _ in range(CALLERS)]
    authenticator = known(headers)
    callers = {"recall": authenticator.recall, "dict": by_token(headers), "hashed": by_hash(headers)}
    repeats = interleaved({name: partial(_run, headers, recall) for name, recall in callers.items()}, ROUNDS)
    authenticator.close()
    theirs, ratio = Amount(repeats.median("dict"), "s"), repeats.ratio("recall", "dict")
    yield Row(
        "a known caller: Authenticator.recall",
        Amount(repeats.median("recall"), "s"),
        "a dict of tokens, with expiry",
        theirs,
        ratio,
        "≤ 3x",
        ratio <= 3,
        f"SHA-256 and the address's comparison alone make it {repeats.ratio('hashed', 'dict'):.2f}x",
    )


def known(headers: Sequence[str]) -> Authenticator:
    """Return an authenticator that remembers the callers of these headers."""
    api = CountingAPI()
    options = Options(audience=(AUDIENCE,), cache_ttl=3600, cache_size=len(headers))
    authenticator = Authenticator(options, TokenReviewVerifier(api, (AUDIENCE,)), PodLookup(api))
    for header in headers:
        authenticator.identify(header[7:], ADDRESS)
    return authenticator


def by_token(headers: Sequence[str]) -> Recall:
    """Return what a cache on the token itself does, for callers from anywhere."""
    entries = {header[7:]: (time.monotonic() + 3600, object()) for header in headers}
    monotonic = time.monotonic

    def recall(token: str, _: str) -> object:
        entry = entries.get(token)
        return entry[1] if entry is not None and monotonic() < entry[0] else None

    return recall


def by_hash(headers: Sequence[str]) -> Recall:
    """Return the least that can be done without keeping tokens, nor taking one from the wrong address."""
    entries = {sha256(header[7:].encode()).digest(): (time.monotonic() + 3600, ADDRESS, object()) for header in headers}
    monotonic = time.monotonic

    def recall(token: str, peer: str) -> object:
        entry = entries.get(sha256(token.encode()).digest())
        return entry[2] if entry is not None and monotonic() < entry[0] and entry[1] == peer else None

    return recall


def _run(headers: Sequence[str], recall: Recall) -> float:
    def work() -> None:
        for _ in range(PASSES):
            for header in headers:
                recall(header[7:], ADDRESS)

    return timed(work, PASSES * len(headers))
