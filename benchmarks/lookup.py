"""A known caller: the lookup of its credential and address, beside a dict that holds the very headers."""

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

Lookup = Callable[[bytes, str], object]


def rows() -> Iterator[Row]:
    """Measure the lookup of a known caller."""
    make = Tokens().make
    # A request's header is always a new object, which has not kept its hash: that would flatter the dict.
    headers = [f"Bearer {make()}".encode() for _ in range(CALLERS)]
    authenticator = knowing(headers)
    lookups = {
        "podproof": lambda header, peer: authenticator.get_known(sha256(header).digest(), peer),
        "dict": by_header(headers),
        "hashed": by_hash(headers),
    }
    repeats = interleaved({name: partial(_run, headers, lookup) for name, lookup in lookups.items()}, ROUNDS)
    authenticator.close()
    ratio = repeats.ratio("podproof", "dict")
    yield Row(
        "a known caller: the lookup of its credential and address",
        Amount(repeats.median("podproof"), "s"),
        "a dict of headers, with expiry",
        Amount(repeats.median("dict"), "s"),
        ratio,
        "≤ 3x",
        ratio <= 3,
        f"SHA-256 and the address's comparison alone make it {repeats.ratio('hashed', 'dict'):.2f}x",
    )


def knowing(headers: Sequence[bytes]) -> Authenticator:
    """Return an authenticator that has the callers of these headers in its cache."""
    api = CountingAPI()
    options = Options(audience=(AUDIENCE,), cache_ttl=3600, cache_size=len(headers))
    authenticator = Authenticator(options, TokenReviewVerifier(api, (AUDIENCE,)), PodLookup(api))
    for header in headers:
        authenticator.authenticate(header[7:].decode(), ADDRESS)
    return authenticator


def by_header(headers: Sequence[bytes]) -> Lookup:
    """Return what a cache on the header itself does, for callers from anywhere."""
    entries = {header: (time.monotonic() + 3600, object()) for header in headers}
    monotonic = time.monotonic

    def look_up(header: bytes, _: str) -> object:
        entry = entries.get(header)
        return entry[1] if entry is not None and monotonic() < entry[0] else None

    return look_up


def by_hash(headers: Sequence[bytes]) -> Lookup:
    """Return the least that can be done without keeping tokens, nor accepting one from a wrong address."""
    entries = {sha256(header).digest(): (time.monotonic() + 3600, ADDRESS, object()) for header in headers}
    monotonic = time.monotonic

    def look_up(header: bytes, peer: str) -> object:
        entry = entries.get(sha256(header).digest())
        return entry[2] if entry is not None and monotonic() < entry[0] and entry[1] == peer else None

    return look_up


def _run(headers: Sequence[bytes], look_up: Lookup) -> float:
    def work() -> None:
        for _ in range(PASSES):
            for header in headers:
                look_up(bytes(memoryview(header)), ADDRESS)

    return timed(work, PASSES * len(headers))
