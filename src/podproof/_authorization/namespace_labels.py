"""The labels of the callers' namespaces, read from the API server where a rule asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from podproof._apiserver.protocols import NamespaceReader
from podproof._authorization.policy import Decision, Labels
from podproof._cache.fork_local import ForkLocal
from podproof._cache.review_cache import ReviewCache
from podproof._cache.review_threads import ReviewThreads
from podproof._cache.ttl_cache import TTLCache
from podproof.errors import NotAllowed, PodAuthError, Unavailable
from podproof.identity import PodIdentity


class NamespaceLabels:
    """The labels of namespaces by name: one GET for each and `ttl`, by the API server client that `reader` returns.

    That a namespace is not there is cached for `missing_ttl`.
    """

    def __init__(
        self,
        reader: Callable[[], NamespaceReader],
        threads: ForkLocal[ReviewThreads],
        *,
        ttl: float,
        size: int,
        missing_ttl: float,
        missing_size: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader

        def make_cache() -> ReviewCache[Labels]:
            return ReviewCache(
                "namespace",
                threads.get(),
                allowed=TTLCache("namespaces", size=size, ttl=ttl, monotonic=monotonic),
                denied=TTLCache("namespaces_missing", size=missing_size, ttl=missing_ttl, monotonic=monotonic),
                monotonic=monotonic,
            )

        self._cache: ForkLocal[ReviewCache[Labels]] = ForkLocal(make_cache)

    def check(self, identity: PodIdentity, check: Callable[[Labels], None], deadline: float) -> Future[Decision] | None:
        """Call `check`, as `Namespaces.check`. Raises NotAllowed, Overloaded, Unavailable."""
        namespace = identity.pod.namespace
        key = namespace.encode()
        cache = self._cache.get()
        labels = cache.get(key)
        if labels is not None:
            check(labels)
            return None
        review = cache.submit(key, partial(self._read, namespace, deadline), deadline, peer=str(identity.pod))
        decision: Future[Decision] = Future()
        review.add_done_callback(lambda done: decision.set_result(_decide(done.result(), check)))
        return decision

    def _read(self, namespace: str, deadline: float) -> Labels:
        found = self._reader().read_namespace(namespace, deadline)
        if found is None:
            raise NotAllowed(f"there is no namespace {namespace:.80}")
        return parse_labels(found)


def _decide(found: Labels | PodAuthError, check: Callable[[Labels], None]) -> Decision:
    if isinstance(found, PodAuthError):
        return found
    try:
        check(found)
    except PodAuthError as denial:
        return denial
    return True


def parse_labels(namespace: Mapping[str, Any]) -> Labels:
    """Return the labels of a Namespace (v1). Raises Unavailable if it is none."""
    metadata = namespace.get("metadata")
    labels = metadata.get("labels", {}) if isinstance(metadata, dict) else None
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise Unavailable("unexpected API server response: expected a Namespace, got one without readable labels")
    return labels
