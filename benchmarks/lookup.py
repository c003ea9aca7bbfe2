"""The lookup of a cached caller, beside a dict of headers, and its cache beside a locked one of cachetools."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import cachetools

from benchmarks import AUDIENCE
from benchmarks.repeats import Repeats, interleaved, timed
from benchmarks.report import Amount, Measurement
from podproof._cache.identity_cache import IdentityCache
from podproof.options import Options
from tests.support.fake_api import PEER, ClaimsAPI, TokenFactory, authenticator_for

CALLERS = 1000
ROUNDS = 31
PASSES = 10

Lookup = Callable[[Any], object]


def rows() -> Iterator[Measurement]:
    """Measure the lookups."""
    make_token = TokenFactory()
    headers = [f"Bearer {make_token()}".encode() for _ in range(CALLERS)]
    yield _whole_lookup(headers)
    yield _cache_alone(headers)


def _whole_lookup(headers: Sequence[bytes]) -> Measurement:
    options = Options(audience=(AUDIENCE,), cache_ttl=3600, cache_size=len(headers))
    authenticator = authenticator_for(ClaimsAPI(), options)
    for header in headers:
        authenticator.authenticate(header[7:].decode(), PEER)
    lookups: Mapping[str, Lookup] = {
        "podproof": lambda header: authenticator.get_known(sha256(header).digest(), PEER),
        "dict": by_header(headers),
        "minimum": by_hash(headers),
    }
    repeats = _measure(headers, lookups)
    authenticator.close()
    ratio = repeats.ratio("podproof", "dict")
    return Measurement(
        "lookup of a cached caller: credential and address",
        Amount(repeats.median("podproof"), "s"),
        "a dict of headers, with expiry",
        Amount(repeats.median("dict"), "s"),
        ratio,
        "≤ 3x",
        ratio <= 3,
        f"a hash, a dict and the address alone make it {repeats.ratio('minimum', 'dict'):.2f}x",
    )


def _cache_alone(headers: Sequence[bytes]) -> Measurement:
    keys = [sha256(header).digest() for header in headers]
    ours: IdentityCache[_Entry] = IdentityCache(len(keys))
    for key in keys:
        ours.put(key, _Entry(time.monotonic() + 3600))
    lookups: Mapping[str, Lookup] = {"podproof": ours.peek, "cachetools": locked_cachetools(keys)}
    repeats = _measure(keys, lookups)
    ratio = repeats.ratio("podproof", "cachetools")
    return Measurement(
        "its cache alone: IdentityCache",
        Amount(repeats.median("podproof"), "s"),
        "cachetools.TTLCache with the lock that threads need",
        Amount(repeats.median("cachetools"), "s"),
        ratio,
        "< 1x",
        ratio < 1,
    )


class _Entry:
    __slots__ = ("cached_until", "pod_uid", "read_at")

    def __init__(self, cached_until: float) -> None:
        self.cached_until = cached_until
        self.read_at = 0.0
        self.pod_uid = "uid"


def by_header(headers: Sequence[bytes]) -> Lookup:
    """Return what a cache by the header itself does, for callers from any address."""
    entries = {header: (time.monotonic() + 3600, object()) for header in headers}
    monotonic = time.monotonic

    def look_up(header: bytes) -> object:
        entry = entries.get(header)
        return entry[1] if entry is not None and monotonic() < entry[0] else None

    return look_up


def by_hash(headers: Sequence[bytes]) -> Lookup:
    """Return the least that can be done without keeping tokens, and with the address compared."""
    entries = {sha256(header).digest(): (time.monotonic() + 3600, PEER, object()) for header in headers}
    monotonic = time.monotonic

    def look_up(header: bytes) -> object:
        entry = entries.get(sha256(header).digest())
        return entry[2] if entry is not None and monotonic() < entry[0] and entry[1] == PEER else None

    return look_up


def locked_cachetools(keys: Sequence[bytes]) -> Lookup:
    """Return a lookup in a `cachetools.TTLCache`, which threads may share only with a lock."""
    cache: cachetools.TTLCache[bytes, object] = cachetools.TTLCache(len(keys), 3600, time.monotonic)
    lock = threading.Lock()
    for key in keys:
        cache[key] = object()

    def look_up(key: bytes) -> object:
        with lock:
            return cache.get(key)

    return look_up


def _measure(keys: Sequence[bytes], lookups: Mapping[str, Lookup]) -> Repeats:
    return interleaved({name: partial(_run, keys, look_up) for name, look_up in lookups.items()}, ROUNDS)


def _run(keys: Sequence[bytes], look_up: Lookup) -> float:
    def work() -> None:
        for _ in range(PASSES):
            for key in keys:
                # A new object, as in each request: one that has kept its hash would flatter the dicts.
                look_up(bytes(memoryview(key)))

    return timed(work, PASSES * len(keys))
