"""How long a server drains, and what does not count as a request. Arguments go before `PODPROOF_DRAIN_*`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict, Unpack

# What is left of the grace period for the requests in flight, in seconds.
FINISH = 5.0


class DrainOptions(TypedDict, total=False):
    """The options of `DrainSettings`, all optional."""

    gap: float
    max: float | None
    grace_period: float
    ignored_agents: tuple[str, ...]
    ignored_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSettings:
    """The options of a drain.

    `gap`: how long no request may arrive before the server stops, in seconds.
    `max`: how long a drain may last, in seconds; by default 5 s less than the grace period.
    `grace_period`: the pod's `terminationGracePeriodSeconds`. A pod cannot read it (the downward API has no field
    for it), so the default is Kubernetes' own, 30 s; a preStop hook's time comes off it.
    `ignored_agents`: beginnings of User-Agent headers whose requests do not count: the kubelet's probes.
    `ignored_paths`: paths whose requests do not count.
    """

    gap: float = 15.0
    max: float | None = None
    grace_period: float = 30.0
    ignored_agents: tuple[str, ...] = ("kube-probe/",)
    ignored_paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("gap", "max", "grace_period"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")

    @property
    def longest(self) -> float:
        """How long a drain may last, in seconds."""
        return max(self.grace_period - FINISH, 0.0) if self.max is None else self.max

    def counts(self, path: str, agent: str) -> bool:
        """Whether a request for `path` from the User-Agent `agent` (may be empty) holds the gap open."""
        return path not in self.ignored_paths and not agent.startswith(self.ignored_agents)


def settings_from(environ: Mapping[str, str] = os.environ, **options: Unpack[DrainOptions]) -> DrainSettings:
    """Return the settings that `options` name, the others read from `PODPROOF_DRAIN_<NAME>`; lists use commas.

    Raises ValueError, naming the variable, for what is not a positive number.
    """
    read: dict[str, Any] = {}
    for field in fields(DrainSettings):
        variable = f"PODPROOF_DRAIN_{field.name.upper()}"
        if field.name in options or variable not in environ:
            continue
        text = environ[variable]
        if field.name.startswith("ignored"):
            read[field.name] = tuple(part.strip() for part in text.split(",") if part.strip())
            continue
        try:
            read[field.name] = float(text)
        except ValueError:
            raise ValueError(f"{variable} must be a number of seconds, not {text!r}") from None
    return DrainSettings(**read, **options)
