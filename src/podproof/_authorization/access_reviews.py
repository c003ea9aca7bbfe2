"""SubjectAccessReviews: the API server says whether a caller may do what its request asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from hashlib import sha256
from typing import Any

from podproof._apiserver.protocols import AccessReviewer
from podproof._authorization.policy import Decision
from podproof._authorization.rbac import RBAC
from podproof._cache.fork_local import ForkLocal
from podproof._cache.review_cache import ReviewCache
from podproof._cache.review_threads import ReviewThreads
from podproof._cache.ttl_cache import TTLCache
from podproof.errors import NotAllowed, Unavailable
from podproof.identity import PodIdentity


class AccessReviews:
    """`RBAC` at work in one middleware: it reviews, and caches decisions."""

    def __init__(
        self,
        rbac: RBAC,
        reviewer: AccessReviewer,
        threads: ForkLocal[ReviewThreads],
        *,
        allowed_ttl: float,
        allowed_size: int,
        denied_ttl: float,
        denied_size: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rbac = rbac
        self._reviewer = reviewer
        self._monotonic = monotonic

        def make_cache() -> ReviewCache[Decision]:
            return ReviewCache(
                "access",
                threads.get(),
                allowed=TTLCache("access_allowed", size=allowed_size, ttl=allowed_ttl, monotonic=monotonic),
                denied=TTLCache("access_denied", size=denied_size, ttl=denied_ttl, monotonic=monotonic),
                monotonic=monotonic,
            )

        self._cache: ForkLocal[ReviewCache[Decision]] = ForkLocal(make_cache)

    def check(self, identity: PodIdentity, method: str, path: str, deadline: float) -> Future[Decision] | None:
        """Decide from the cache, or return the future of a review. `deadline` is in monotonic seconds.

        Raises NotAllowed, Overloaded, Unavailable.
        """
        spec = {
            "user": identity.identity,
            "uid": identity.service_account.uid,
            "groups": identity.groups,
            "extra": dict(identity.extra),
            **self._rbac.attributes(method, path),
        }
        # The question itself, in one size however long the path.
        key = sha256(json.dumps(spec).encode()).digest()
        cache = self._cache.get()
        if cache.get(key):
            return None
        if self._rbac.timeout is not None:
            deadline = min(deadline, self._monotonic() + self._rbac.timeout)
        return cache.submit(key, partial(self._review, spec, deadline), deadline, peer=str(identity.pod))

    def _review(self, spec: Mapping[str, Any], deadline: float) -> Decision:
        parse_access_review(self._reviewer.review_access(spec, deadline), spec)
        return True


def parse_access_review(review: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Return if a SubjectAccessReview of this spec allows it.

    Raises NotAllowed, or Unavailable if it does not say.
    """
    status = review.get("status")
    if not isinstance(status, dict) or not isinstance(status.get("allowed"), bool):
        raise Unavailable("the API server's SubjectAccessReview does not say what is allowed")
    if not status["allowed"] or status.get("denied"):
        asked = spec.get("nonResourceAttributes") or spec["resourceAttributes"]
        what = " ".join(f"{key}={value!r:.200}" for key, value in asked.items() if value)
        raise NotAllowed(f"Kubernetes RBAC does not allow {spec['user']}: {what}")
