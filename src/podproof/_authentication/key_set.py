"""An issuer's signing keys: fetched at the first use, refreshed, kept while their source fails."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from podproof._authentication.jwk import SigningKey, UnusableKey, parse_jwk
from podproof._authentication.key_source import KeySource
from podproof._cache.fork_local import ForkLocal
from podproof._telemetry import metrics
from podproof.errors import Unavailable

log = logging.getLogger("podproof")

REFRESH_INTERVAL = 300.0
"""Seconds after which keys are fetched again: for so long a key is used that its issuer has withdrawn."""

RETRY_INTERVAL = 30.0
"""Seconds between two fetches at the least: after a failure, or for tokens that name an unknown key."""

FETCH_TIMEOUT = 2.0
"""Seconds that a fetch may take. It takes half of a caller's time at most: the other half is for a TokenReview."""

MAX_KEYS = 100
"""The most keys that a set may have. A cluster has one, or two while it rotates them."""

KeysById = Mapping[str, tuple[SigningKey, ...]]


class KeySet:
    """The keys of one source, by `kid`. One thread fetches them, in the time of the caller whose token it verifies.

    There is no I/O in the constructor, and a forked child fetches keys of its own. `monotonic` is the clock of
    deadlines, in seconds, and `now` returns Unix seconds.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._monotonic = monotonic
        self._now = now
        self._state = ForkLocal(_State)

    def find(self, key_id: str, deadline: float) -> Sequence[SigningKey]:
        """Return the keys of this `kid`, several if the set has several, none if it has none or cannot be fetched.

        Blocks for up to FETCH_TIMEOUT where the keys have to be fetched; other threads use the previous ones meanwhile,
        and wait only if there are none.
        """
        state = self._state.get()
        if self._is_due(state, key_id):
            self._refresh(state, key_id, deadline)
        keys = state.keys.get(key_id, ())
        (metrics.key_hits if keys else metrics.key_misses).inc()
        return keys

    def find_at_once(self, key_id: str) -> Sequence[SigningKey]:
        """Return the keys of this `kid` that `find` returns without fetching any, none if this has to fetch them."""
        state = self._state.get()
        if self._is_due(state, key_id) and not state.lock.locked():  # locked: another thread fetches them
            return ()
        keys = state.keys.get(key_id, ())
        if keys:  # else `find` counts it
            metrics.key_hits.inc()
        return keys

    @property
    def failing(self) -> bool:
        """True if the last fetch failed: a key that is not in the set may be one that its issuer has added since."""
        return self._state.get().failing

    def _is_due(self, state: _State, key_id: str) -> bool:
        settled = key_id in state.keys and not state.failing
        return self._monotonic() - state.fetched_at >= (REFRESH_INTERVAL if settled else RETRY_INTERVAL)

    def _refresh(self, state: _State, key_id: str, deadline: float) -> None:
        now = self._monotonic()
        seconds = min(FETCH_TIMEOUT, (deadline - now) / 2)
        if seconds <= 0 or not state.lock.acquire(timeout=0 if state.keys else seconds):
            return
        try:
            if self._is_due(state, key_id):  # again: another thread may have fetched them
                self._fetch(state, now + seconds)
        finally:
            state.lock.release()

    def _fetch(self, state: _State, deadline: float) -> None:
        try:
            keys, skipped = parse_key_set(self._source.fetch(deadline))
        except Unavailable as failure:
            if not state.failing:  # once for all failures in a row
                log.warning(
                    "the signing keys of %s cannot be read: %s; until they can be, %s",
                    self._source,
                    failure.reason,
                    "the previous ones are used" if state.keys else "tokens are reviewed by the API server",
                )
            state.failing = True
            metrics.key_set_failure_time.set(self._now())
        else:
            if skipped and skipped != state.skipped:
                log.warning("some signing keys of %s are not used: %s", self._source, "; ".join(skipped))
            state.keys, state.skipped, state.failing = keys, skipped, False
            metrics.signing_keys.set(sum(map(len, keys.values())))
            metrics.key_set_time.set(self._now())
        finally:
            state.fetched_at = self._monotonic()  # last: until then, threads without keys wait for these


class _State:
    """One process's keys, and when they were fetched or should have been."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys: KeysById = {}
        self.skipped: tuple[str, ...] = ()
        self.failing = False
        self.fetched_at = -math.inf


def parse_key_set(document: Mapping[str, object]) -> tuple[KeysById, tuple[str, ...]]:
    """Return the usable keys of a JWK Set (RFC 7517 section 5) by `kid`, and why each other one is not used.

    Raises Unavailable if this is not a JWK Set, or one of more than MAX_KEYS keys.
    """
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise Unavailable(f"this is not a JWK Set with up to {MAX_KEYS} keys")
    keys: dict[str, tuple[SigningKey, ...]] = {}
    skipped = []
    for number, jwk in enumerate(listed, start=1):
        try:
            key = parse_jwk(jwk)
        except UnusableKey as why:
            skipped.append(f"key {number} of {len(listed)}: {why}")
        else:
            keys[key.key_id] = (*keys.get(key.key_id, ()), key)
    return keys, tuple(skipped)
