"""Metrics for Prometheus, if prometheus-client is installed; else each is a stand-in that does nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

try:
    import prometheus_client
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

log = logging.getLogger("podproof")


def _is_usable(environ: Mapping[str, str]) -> bool:
    """Return False if prometheus-client would fail at each metric, for want of its directory for several processes."""
    names = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
    given = [environ[name] for name in names if name in environ]
    if not given or os.access(given[0], os.W_OK | os.X_OK):
        return True
    log.warning("metrics are off: PROMETHEUS_MULTIPROC_DIR names no directory to write to: %r", given[0])
    return False


ENABLED = INSTALLED and _is_usable(os.environ)
"""Whether metrics are kept."""


class _Nothing:
    """Stands in for a metric without prometheus-client, or without its directory."""

    def labels(self, *_: str) -> _Nothing:
        return self

    # Each request counts something: bool() takes no argument or one, and costs next to nothing.
    inc = dec = set = observe = bool


def _make(kind: str, name: str, documentation: str, labels: Sequence[str] = (), **more: Any) -> Any:
    if not ENABLED:
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
    "Cache lookups, by cache and result: identities, denied tokens, access reviews, namespaces.",
    ["cache", "result"],
)
cache_evictions = _make(
    "Counter",
    "podproof_cache_evictions",
    "Cache entries evicted before they had expired, because the cache was full.",
    ["cache"],
)
reviews_in_flight = _make(
    "Gauge",
    "podproof_reviews_in_flight",
    "Reviews by the API server that are running or waiting to run: token, access or namespace.",
    ["review"],
    multiprocess_mode="livesum",
)
api_seconds = _make(
    "Histogram",
    "podproof_api_request_duration_seconds",
    "Duration of calls to the API server, retries and failures included.",
    ["resource"],
)
token_seconds = _make(
    "Histogram",
    "podproof_token_remaining_seconds",
    "Remaining lifetime of tokens when they were authenticated.",
    buckets=(60, 300, 600, 1200, 1800, 2700, 3600, 7200, 14400, 43200, 86400, 604800),
)
own_token_end = _make(
    "Gauge",
    "podproof_own_token_expiration_timestamp_seconds",
    "When the token that the API server is called with expires, in Unix time.",
    multiprocess_mode="mostrecent",
)
pods = _make(
    "Gauge",
    "podproof_pods",
    "Pods in the view that a watch keeps current.",
    multiprocess_mode="livemax",
)
# The time and not the age, as Prometheus advises: the age of a view whose watch hangs would stand still. Of several
# processes, the one that is furthest behind.
pod_view_time = _make(
    "Gauge",
    "podproof_pod_view_timestamp_seconds",
    "When the view of the pods was last known to be current, in Unix time.",
    multiprocess_mode="livemin",
)
pod_watch_restarts = _make(
    "Counter",
    "podproof_pod_watch_restarts",
    "Watches and lists of pods that ended, by reason: each is followed by another.",
    ["reason"],
)
stale_pods = _make(
    "Counter",
    "podproof_stale_pods",
    "Pods that were accepted by what was known of them, since the API server could not be asked.",
)
# Times too. Keys are only fetched while tokens come: those of an app without callers are old, and that is right.
key_set_time = _make(
    "Gauge",
    "podproof_key_set_timestamp_seconds",
    "When the signing keys were last fetched, in Unix time.",
    multiprocess_mode="livemin",
)
key_set_failure_time = _make(
    "Gauge",
    "podproof_key_set_failure_timestamp_seconds",
    "When the signing keys could last not be fetched, in Unix time.",
    multiprocess_mode="livemax",
)
signing_keys = _make(
    "Gauge",
    "podproof_signing_keys",
    "Signing keys that tokens are verified by.",
    multiprocess_mode="livemin",
)
key_set_lookups = _make(
    "Counter",
    "podproof_key_set_lookups",
    "Tokens whose key was looked up, by result: a miss is one that the API server reviews.",
    ["result"],
)
issued_tokens = _make(
    "Counter",
    "podproof_issued_tokens",
    "Tokens that an exchange has issued, by audience.",
    ["audience"],
)
introspections = _make(
    "Counter",
    "podproof_introspections",
    "Introspections of issued tokens, by result: active or inactive.",
    ["result"],
)
reload_failures = _make(
    "Counter",
    "podproof_reload_failures",
    "Changes of a mounted file or directory that were not taken over, since it is invalid: rules, grants or keys.",
    ["what"],
)

# What nearly every request or new token counts, looked up once.
allowed = decisions.labels("allowed", "authenticated")
allowed_anonymous = decisions.labels("allowed", "anonymous")
key_hits, key_misses = key_set_lookups.labels("hit"), key_set_lookups.labels("miss")


@contextmanager
def timed(resource: str) -> Iterator[None]:
    """Observe how long a call to the API server takes, by resource."""
    begun = perf_counter()
    try:
        yield
    finally:
        api_seconds.labels(resource).observe(perf_counter() - begun)
