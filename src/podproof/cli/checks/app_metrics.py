"""The metrics of the app that runs: how old its view of the pods is, and its signing keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import requests

from podproof.cli.durations import format_duration
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, ok, skip, warn

if TYPE_CHECKING:
    from podproof.options import Options

_SAMPLE = re.compile(r"podproof_(\w+)(?:\{(.*)\})? (\S+)")


def check_app_metrics(environment: Environment, options: Options, http: requests.Session) -> Iterator[Finding]:
    """Read what the app's own processes say of their views and keys, which are theirs alone."""
    url = environment.metrics_url
    if url is None:
        yield skip(
            "view",
            "how old the app's own view of the pods and its signing keys are is known to its metrics, which were not "
            "read",
            "podproof doctor --metrics http://localhost:8080/metrics   (where the app serves them)",
        )
        return
    try:
        response = http.get(url, timeout=environment.timeout)
        response.raise_for_status()
    except requests.RequestException as error:
        yield warn("view", f"the app's metrics cannot be read: {type(error).__name__}", f"curl {url}")
        return
    values = parse_metrics(response.text)
    if not values:
        yield warn("view", f"{url} has no metrics of podproof", "pip install 'podproof[prometheus]'")
        return
    yield _check_view(environment, options, values)
    yield from _check_keys(environment, values)


def parse_metrics(text: str) -> Mapping[str, float]:
    """Return podproof's samples of Prometheus' text format, by name without its prefix and with its labels."""
    values = {}
    for match in map(_SAMPLE.fullmatch, text.splitlines()):
        if match is not None:
            name, labels, value = match.groups()
            values[f"{name}{{{labels}}}" if labels else name] = float(value)
    return values


def _check_view(environment: Environment, options: Options, values: Mapping[str, float]) -> Finding:
    known_at = values.get("pod_view_timestamp_seconds", 0.0)
    if not known_at:
        return ok("view", "the app has no view of the pods yet: it begins one with the first token")
    age = environment.now() - known_at
    pods = values.get("pods", 0.0)
    view = f"the app's view of {pods:,.0f} pod{'s' * (pods != 1)} was current {format_duration(age)} ago"
    if age > options.max_staleness:
        from podproof._authentication.pod_watch import MAX_OUTAGE  # noqa: PLC0415  not in a caller's image

        outage = MAX_OUTAGE if options.max_outage is None else options.max_outage
        return warn(
            "view",
            f"{view}: pods are looked up; if that fails, callers are lost {format_duration(outage)} after that time "
            "(max_outage)",
            "kubectl logs deployment/NAME | grep 'view of the pods'",
        )
    return ok("view", view)


def _check_keys(environment: Environment, values: Mapping[str, float]) -> Iterator[Finding]:
    fetched_at = values.get("key_set_timestamp_seconds", 0.0)
    failed_at = values.get("key_set_failure_timestamp_seconds", 0.0)
    fetched = format_duration(environment.now() - fetched_at) if fetched_at else ""
    failed = format_duration(environment.now() - failed_at) if failed_at else ""
    if failed_at > fetched_at:
        yield warn(
            "keys",
            f"the app could not fetch its signing keys {failed} ago: "
            + (f"it uses those of {fetched} ago" if fetched else "it has none, and each token is reviewed"),
            "kubectl logs deployment/NAME | grep 'signing keys'",
        )
    elif fetched:
        count = values.get("signing_keys", 0.0)
        keys = f"the app fetched its {count:.0f} signing key{'s' * (count != 1)} {fetched} ago"
        yield ok("keys", keys + (f"; it could not {failed} ago" if failed else ""))
    missed = values.get('key_set_lookups_total{result="miss"}', 0.0)
    if missed:
        yield warn(
            "keys",
            f"{missed:,.0f} tokens named a key that was not among them: each was reviewed by the API server",
            "kubectl exec deployment/CALLER -- podproof inspect   (the key of its token; managed clusters publish only "
            "some)",
        )
