"""Metrics for a Prometheus to scrape: there where prometheus-client is installed, and nothing where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

try:
    import prometheus_client
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True


class _Nothing:
    """Takes the place of every metric where there are none."""

    def labels(self, *_: str) -> _Nothing:
        return self

    # Each request counts something: bool() takes no argument or any, and is called in no time.
    inc = dec = set = observe = bool


def _make(kind: str, name: str, documentation: str, labels: Sequence[str] = (), **more: Any) -> Any:
    if not INSTALLED:
        return _Nothing()
    return getattr(prometheus_client, kind)(name, documentation, labels, **more)


decisions = _make(
    "Counter",
    "podproof_decisions",
    "Requests that were decided on: allowed or denied, and the code of the reason.",
    ["decision", "code"],
)
cache_lookups = _make(
    "Counter",
    "podproof_cache_lookups",
    "What was looked up among what was decided before: accepted and refused tokens, allowed and denied actions.",
    ["cache", "result"],
)
cache_evictions = _make(
    "Counter",
    "podproof_cache_evictions",
    "What was forgotten before its time, for want of room.",
    ["cache"],
)
reviews_in_flight = _make(
    "Gauge",
    "podproof_reviews_in_flight",
    "Questions that are with the API server, or wait to be: of a token, or of access.",
    ["review"],
    multiprocess_mode="livesum",
)
api_seconds = _make(
    "Histogram",
    "podproof_api_request_duration_seconds",
    "Time until the API server has answered or could not, retries included.",
    ["resource"],
)
token_seconds = _make(
    "Histogram",
    "podproof_token_remaining_seconds",
    "What was left of the life of a token when it was reviewed and found good.",
    buckets=(60, 300, 600, 1200, 1800, 2700, 3600, 7200, 14400, 43200, 86400, 604800),
)
own_token_end = _make(
    "Gauge",
    "podproof_own_token_expiration_timestamp_seconds",
    "When the token that the API server is called with expires, in Unix time.",
    multiprocess_mode="mostrecent",
)

# What nearly every request counts, looked up once.
allowed = decisions.labels("allowed", "authenticated")
allowed_anonymous = decisions.labels("allowed", "anonymous")


@contextmanager
def timed(resource: str) -> Iterator[None]:
    """Observe how long a call to the API server takes, for the resource that is asked for."""
    begun = perf_counter()
    try:
        yield
    finally:
        api_seconds.labels(resource).observe(perf_counter() - begun)
