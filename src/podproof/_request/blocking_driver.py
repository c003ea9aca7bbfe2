"""Drives a pipeline's flow in a thread, which it blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

from podproof._request.flow import Allowed, Flow


def run_flow(flow: Flow, seconds_left: Callable[[], float] = lambda: math.inf) -> Allowed:
    """Return what a flow decides, waiting for what it asks for, as long as its request lasts. Raises its PodAuthError.

    `seconds_left` is how long that is.
    """
    try:
        while True:
            wait = next(flow)
            with suppress(TimeoutError):
                wait.future.exception(min(wait.seconds, seconds_left()))
    except StopIteration as decided:
        allowed: Allowed = decided.value
        return allowed
