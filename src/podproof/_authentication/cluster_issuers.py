"""The issuers of this cluster's tokens: those that are configured, else that of our own token."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from podproof._apiserver.protocols import IssuerReader
from podproof._authentication.claims import canonical_issuer
from podproof._cache.fork_local import ForkLocal
from podproof._cache.review_threads import ReviewThreads
from podproof._cache.single_flight import SingleFlight
from podproof.errors import PodAuthError, Unavailable

REREAD_INTERVAL = 60.0
"""Seconds between two looks at our own token: its issuer changes when the API server gets another one."""

LEGACY = "kubernetes/serviceaccount"
"""The issuer of tokens in Secrets, in each cluster (pkg/serviceaccount/legacy.go)."""


class ClusterIssuers:
    """Knows which issuers are this cluster's, all in canonical form. The constructor does no I/O.

    Without `configured` ones they are those that our own token has had since this process began. `reader` is asked for
    them, in one of the `threads`.
    """

    def __init__(
        self,
        configured: Sequence[str],
        reader: IssuerReader,
        threads: ForkLocal[ReviewThreads],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configured = frozenset(map(canonical_issuer, configured))
        self._reader = reader
        self._monotonic = monotonic
        self._state = ForkLocal(lambda: _State(threads.get(), monotonic))

    @property
    def known(self) -> frozenset[str]:
        """All that are known by now."""
        return self._configured | self._state.get().read | {LEGACY}

    def refresh(self, deadline: float) -> Future[PodAuthError | None] | None:
        """Return what to wait for before an issuer that is not `known` is taken for another's, None for nothing.

        Its result is Unavailable if no issuer of ours could be read yet: then no issuer is another's.
        `deadline` is in monotonic seconds. Raises Overloaded or Unavailable, as `SingleFlight.submit`.
        """
        if self._configured:
            return None
        state = self._state.get()
        if self._monotonic() < state.next_read:
            return None
        return state.calls.submit("issuer", partial(self._read, state, deadline), deadline)

    def _read(self, state: _State, deadline: float) -> Unavailable | None:
        try:
            state.read |= {canonical_issuer(self._reader.issuer(deadline))} - {""}
        except Unavailable as failure:
            if not state.read:
                return failure
        except Exception as error:  # noqa: BLE001  an error in our own code must deny, not crash
            return Unavailable.unexpected(error)
        if not state.read:
            return Unavailable("our own token has no issuer: name the cluster's in issuers")
        state.next_read = self._monotonic() + REREAD_INTERVAL
        return None


class _State:
    """What one process has read."""

    def __init__(self, threads: ReviewThreads, monotonic: Callable[[], float]) -> None:
        self.read: frozenset[str] = frozenset()
        self.next_read = -math.inf
        self.calls: SingleFlight[str, PodAuthError | None] = SingleFlight("issuer", threads, monotonic=monotonic)
