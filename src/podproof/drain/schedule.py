"""When a draining server may stop: once no request has arrived for a while, or when its time is up."""

from __future__ import annotations

from podproof.drain.settings import DrainSettings


def stop_at(settings: DrainSettings, *, since: float, arrived: float) -> float:
    """Return the moment to stop at, if nothing more arrives.

    `since`: when the drain began; `arrived`: when the last request that counts arrived, before or after. All three
    moments are seconds on one clock.
    """
    return min(max(since, arrived) + settings.gap, since + settings.longest)
