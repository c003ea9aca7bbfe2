"""What a pipeline's generator yields and returns: a driver waits for the one, and acts on the other."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, NamedTuple

from podproof._authentication.cached_identity import CachedIdentity
from podproof._request.context import DecisionRecorder


class Wait(NamedTuple):
    """What a driver has to wait for: a future, for so many seconds at most. It need not look at the result."""

    future: Future[Any]
    seconds: float


class Allowed(NamedTuple):
    """Who a request is allowed for, None for an anonymous caller.

    `peer` is the address that was compared, or the connection's; `recorder` is what the decision is logged by.
    """

    caller: CachedIdentity | None
    peer: str | None
    recorder: DecisionRecorder


Flow = Generator[Wait, None, Allowed]
"""Yields what to wait for; returns who is allowed; raises a PodAuthError to deny."""
