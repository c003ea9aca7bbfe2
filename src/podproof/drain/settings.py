"""How long a server drains, and which requests do not keep the drain open.

An argument wins over `PODPROOF_DRAIN_<NAME>`, the environment over the default.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

__all__ = ["HEALTH_CHECK_AGENTS", "DrainOptions", "DrainSettings", "read_drain_settings"]

PREFIX = "PODPROOF_DRAIN_"

# What is left of the grace period for the requests in flight, in seconds.
FINISH = 5.0

# Clients that call a pod for as long as it listens, whether it is ready or not. Each entry is how the User-Agent
# begins, with its source.
HEALTH_CHECK_AGENTS = (
    "kube-probe/",  # the kubelet: kubernetes/kubernetes pkg/probe/http/request.go
    # Knative's activator, autoscaler, ingress and queue-proxy: knative/networking pkg/http/header/header.go
    "Knative-Activator-Probe",
    "Knative-Autoscaling-Probe",
    "Knative-Ingress-Probe",
    "Knative-Queue-Proxy-Probe",
    "Consul Health Check",  # hashicorp/consul agent/checks/check.go
    "Envoy/HC",  # envoyproxy/envoy source/common/http/headers.h: EnvoyHealthChecker
    # Load balancers, by their vendors' documentation.
    "ELB-HealthChecker/",  # AWS: ALB and NLB
    "GoogleHC/",  # Google Cloud
    "Load Balancer Agent",  # Azure Load Balancer
    "Edge Health Probe",  # Azure Front Door
    "Azure Traffic Manager Endpoint Monitor",
    "Amazon-Route53-Health-Check-Service",
    "Mozilla/5.0 (compatible; Cloudflare-Traffic-Manager/",  # Cloudflare Load Balancing's monitors
    "Mozilla/5.0 (compatible;Cloudflare-Healthchecks/",  # Cloudflare Health Checks, in two spellings
    "Mozilla/5.0 (compatible; Cloudflare-Healthchecks/",
    "GoogleStackdriverMonitoring-UptimeChecks",
    # Scrapers of metrics.
    "Prometheus/",  # prometheus/prometheus scrape/scrape.go
    "Blackbox Exporter/",  # prometheus/blackbox_exporter prober/http.go
    "vm_promscrape",  # VictoriaMetrics' vmagent: lib/promscrape/client.go
    "GrafanaAgent/",
    "Alloy/",  # grafana/alloy internal/useragent
    "OpenTelemetry Collector",  # by its description or, in the prometheus receiver, by its command's name
    "otelcol",
    "Datadog Agent/",
)

# Prometheus' remote write and the Collector's exporter carry the same User-Agent as their scrapes, in POST requests
# that must not be lost.
_HEALTH_CHECK_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class DrainOptions(TypedDict, total=False):
    """The options of `DrainSettings`, all optional; `gap` is the old name of `idle_timeout`."""

    idle_timeout: float
    gap: float
    max: float | None
    grace_period: float
    ignored_agents: Iterable[str]
    ignored_paths: Iterable[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSettings:
    """The options of a drain.

    `idle_timeout`: the server stops once no request has arrived for so long, in seconds; 0 stops it at once.
    `max`: how long a drain may last, in seconds; by default 5 s less than the grace period.
    `grace_period`: the pod's `terminationGracePeriodSeconds`. A pod cannot read it (the downward API has no field
    for it), so the default is Kubernetes' own, 30 s; a preStop hook's time comes off it.
    `ignored_agents`: how the User-Agent header of requests begins that do not keep the drain open: health checks.
    `ignored_paths`: paths whose requests do not keep the drain open.
    """

    idle_timeout: float = 15.0
    max: float | None = None
    grace_period: float = 30.0
    ignored_agents: tuple[str, ...] = HEALTH_CHECK_AGENTS
    ignored_paths: tuple[str, ...] = ()

    @property
    def time_limit(self) -> float:
        """How long a drain may last, in seconds."""
        return max(self.grace_period - FINISH, 0.0) if self.max is None else self.max

    def keeps_open(self, method: str, path: str, user_agent: str) -> bool:
        """Return True if this request postpones the end of the drain; `user_agent` may be empty.

        `ignored_agents` are about requests that only read (GET, HEAD, OPTIONS).
        """
        if path in self.ignored_paths:
            return False
        return method not in _HEALTH_CHECK_METHODS or not user_agent.startswith(self.ignored_agents)

    def stop_time(self, *, drain_started: float, last_request: float) -> float:
        """Return when to stop if no more requests arrive.

        `drain_started`, and `last_request`, which may be before it, are seconds on the same clock as what is returned.
        """
        return min(max(drain_started, last_request) + self.idle_timeout, drain_started + self.time_limit)


def read_drain_settings(environ: Mapping[str, str] = os.environ, **options: Unpack[DrainOptions]) -> DrainSettings:
    """Return the settings of these options, the others read from `PODPROOF_DRAIN_<NAME>`; lists use commas.

    A variable that is empty counts as unset: Helm charts set such.

    Raises ValueError, naming the option or the variable, for an invalid value, for an unknown option, and if an option
    is given by its old and its new name.
    """
    for name in options:
        if name not in _PARSERS:
            raise ValueError(f"unknown option {name!r}: expected one of {', '.join(_PARSERS)}")
    arguments = _parse_values(options, source=str)
    texts = {
        name: environ[_variable(name)]
        for name in _PARSERS
        if _current_name(name) not in arguments and environ.get(_variable(name), "").strip()
    }
    return DrainSettings(**_parse_values(texts, source=_variable), **arguments)


def _parse_values(given: Mapping[str, object], source: Callable[[str], str]) -> dict[str, Any]:
    """Return the parsed values by their options' current names; `source` returns where an option was given."""
    if "gap" in given and "idle_timeout" in given:
        current = source("idle_timeout")
        raise ValueError(f"{source('gap')} is the old name of {current}: set only {current}")
    values = {}
    for name, value in given.items():
        parse, expected = _PARSERS[name]
        try:
            values[_current_name(name)] = parse(value)
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"invalid {source(name)} {value!r}: expected {expected}") from None
    return values


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _current_name(name: str) -> str:
    return "idle_timeout" if name == "gap" else name


def _parse_idle_timeout(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError
    return seconds


def _parse_duration(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError
    return seconds


def _parse_max(value: Any) -> float | None:
    return None if value is None else _parse_duration(value)


def _parse_list(value: Any) -> tuple[str, ...]:
    """Return the strings of a list, or of a text with commas."""
    # Without blank ones: every User-Agent begins with the empty string.
    parts = value.split(",") if isinstance(value, str) else [*value]
    return tuple(part.strip() for part in parts if part.strip())


_PARSERS: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "idle_timeout": (_parse_idle_timeout, "0 or more seconds"),
    "gap": (_parse_idle_timeout, "0 or more seconds"),  # the name of before
    "max": (_parse_max, "more than 0 seconds"),
    "grace_period": (_parse_duration, "more than 0 seconds"),
    "ignored_agents": (_parse_list, "how User-Agents begin, separated by commas"),
    "ignored_paths": (_parse_list, "paths, separated by commas"),
}
