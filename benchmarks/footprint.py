"""Memory that each remembered caller takes, in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.fakes import ADDRESS, AUDIENCE, CountingAPI, Tokens
from benchmarks.report import Amount, Row
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.options import Options

CALLERS = 100_000
LIMIT = 1536
"""Bytes."""


def rows() -> Iterator[Row]:
    """Measure memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        grown = process.submit(remember, CALLERS).result() / CALLERS
    yield Row(
        f"memory a remembered caller, {CALLERS:,} of them",
        Amount(grown, "B"),
        goal="≤ 1.5 KB",
        met=grown <= LIMIT,
    )


def remember(callers: int) -> int:
    """Remember so many callers, each of a pod of its own, and return by how many bytes this process has grown."""
    api = CountingAPI()
    options = Options(audience=(AUDIENCE,), cache_ttl=3600, cache_size=callers)
    authenticator = Authenticator(options, TokenReviewVerifier(api, (AUDIENCE,)), PodLookup(api))
    tokens = Tokens()

    def identify(number: int) -> None:
        authenticator.authenticate(tokens.make(name=f"alice-7d4b9c6f5-{number:05}"), ADDRESS)

    identify(0)  # so that threads and the like are there before
    before = _resident()
    for number in range(1, callers):
        identify(number)
    return _resident() - before


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
