from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric

from podproof._apiserver.client import APIServerClient
from podproof._telemetry import metrics
from podproof._token.jwt import read_claims
from podproof.errors import PodAuthError, Unavailable
from podproof.testing import Cluster
from tests.support.fake_api import NOW, AuthenticatorFactory, Clock, FakeAPI, token
from tests.support.middleware_client import MiddlewareClient

ROOT = Path(__file__).parents[3]
BUCKETS = re.compile(r"_(bucket|count|sum)$")


class MetricGrowth:
    """How much each metric has grown since this was made."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> dict[str, float]:
        return {
            f"{sample.name}{sorted(sample.labels.values())}": sample.value
            for family in REGISTRY.collect()
            for sample in family.samples
        }

    def __call__(self, name: str, *labels: str) -> float:
        key = f"podproof_{name}{sorted(labels)}"
        return self._now().get(key, 0) - self._before.get(key, 0)


@pytest.fixture
def growth_of() -> MetricGrowth:
    return MetricGrowth()


def podproof_metrics() -> list[Metric]:
    return [family for family in REGISTRY.collect() if family.name.startswith("podproof_")]


def test_decisions_are_counted_by_their_code(
    make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI, growth_of: MetricGrowth
) -> None:
    client = make_client(exempt=["/healthz"])
    client()
    client()
    client("/healthz")
    client(peer="10.9.9.9")
    client(headers={"Authorization": ""})
    fake_api.review = Unavailable("away")
    client(headers={"Authorization": f"Bearer {token(jti='other')}"})
    assert growth_of("decisions_total", "allowed", "authenticated") == 2
    assert growth_of("decisions_total", "allowed", "anonymous") == 1
    assert growth_of("decisions_total", "denied", "wrong-address") == 1
    assert growth_of("decisions_total", "denied", "no-credential") == 1
    assert growth_of("decisions_total", "denied", "unavailable") == 1


def test_cache_lookups_are_hits_or_misses(
    make_client: Callable[..., MiddlewareClient], growth_of: MetricGrowth
) -> None:
    client = make_client()
    for _ in range(3):
        client()
    assert growth_of("cache_lookups_total", "identity", "hit") == 2
    assert growth_of("cache_lookups_total", "identity", "miss") == 1
    assert growth_of("cache_lookups_total", "denied", "miss") == 1


def test_evictions_from_a_full_cache_are_counted(
    make_client: Callable[..., MiddlewareClient], time: Clock, growth_of: MetricGrowth
) -> None:
    client = make_client(cache_size=1)
    for number in range(3):
        client(headers={"Authorization": f"Bearer {token(jti=str(number))}"})
    assert growth_of("cache_evictions_total", "identity") == 2
    time.passes(60)
    client()
    assert growth_of("cache_evictions_total", "identity") == 2


def test_reviews_in_flight_go_up_and_down(
    make_client: Callable[..., MiddlewareClient],
    fake_api: FakeAPI,
    make_authenticator: AuthenticatorFactory,
    growth_of: MetricGrowth,
) -> None:
    seen: list[float] = []
    fake_api.before = lambda: seen.append(growth_of("reviews_in_flight", "token"))
    make_client()()
    assert seen == [1]
    make_authenticator.made[0].close()
    assert growth_of("reviews_in_flight", "token") == 0


def test_the_remaining_lifetime_of_a_token_is_observed_at_its_review(
    make_client: Callable[..., MiddlewareClient], growth_of: MetricGrowth
) -> None:
    client = make_client()
    for _ in range(3):
        client(headers={"Authorization": f"Bearer {token(exp=NOW + 700)}"})
    assert growth_of("token_remaining_seconds_count") == 1
    assert growth_of("token_remaining_seconds_sum") == pytest.approx(700)
    assert growth_of("token_remaining_seconds_bucket", "600.0") == 0
    assert growth_of("token_remaining_seconds_bucket", "1200.0") == 1


def test_calls_to_the_api_server_are_timed(cluster: Cluster, growth_of: MetricGrowth) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice")
    with closing(APIServerClient()) as client:
        deadline = monotonic() + 5
        client.review_token(alice.token("bob"), ["bob"], deadline)
        client.read_pod("default", "alice-pod", deadline)
        client.review_access({"user": "a", "nonResourceAttributes": {"verb": "get", "path": "/"}}, deadline)
        cluster.fail("close")
        with pytest.raises(PodAuthError):
            client.read_pod("default", "alice-pod", deadline)
    for resource, calls in (("tokenreviews", 1), ("pods", 2), ("subjectaccessreviews", 1)):
        assert growth_of("api_request_duration_seconds_count", resource) == calls
        assert growth_of("api_request_duration_seconds_sum", resource) > 0


def test_the_expiry_of_our_own_token_is_a_metric(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    metrics.own_token_end.set(0)
    with closing(APIServerClient()) as client:
        own = client.own_token()
    assert own is not None
    value = REGISTRY.get_sample_value("podproof_own_token_expiration_timestamp_seconds")
    assert value == read_claims(own)["exp"]


def test_an_own_token_without_an_expiry_does_not_change_the_metric(cluster: Cluster) -> None:
    metrics.own_token_end.set(0)
    with closing(APIServerClient()) as client:  # the administrator's is opaque
        assert client.own_token() is not None
    assert REGISTRY.get_sample_value("podproof_own_token_expiration_timestamp_seconds") == 0


def test_names_and_units_follow_prometheus_conventions() -> None:
    assert len(podproof_metrics()) == 18
    for family in podproof_metrics():
        assert re.fullmatch(r"podproof(_[a-z]+)+", family.name)
        assert family.documentation.endswith(".")
        if "duration" in family.name or "remaining" in family.name or "expiration" in family.name:
            assert family.name.endswith("_seconds")


def test_no_label_grows_with_the_callers() -> None:
    assert {label for family in podproof_metrics() for sample in family.samples for label in sample.labels} <= {
        "decision",
        "code",
        "cache",
        "result",
        "review",
        "resource",
        "reason",
        "audience",  # of a grant
        "what",
        "le",
    }


def test_the_dashboard_shows_all_metrics_and_no_others(make_client: Callable[..., MiddlewareClient]) -> None:
    make_client()()
    with metrics.timed("tokenreviews"):  # a labelled metric has no samples before its first
        metrics.pod_watch_restarts.labels("ended")
    metrics.issued_tokens.labels("ledger")
    metrics.introspections.labels("active")
    metrics.reload_failures.labels("keys")
    dashboard = json.loads((ROOT / "manifests" / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {name for expression in expressions for name in re.findall(r"podproof_\w+", expression)}
    samples = {sample.name for family in podproof_metrics() for sample in family.samples}
    assert shown <= samples
    families = {BUCKETS.sub("", name) for name in shown}
    assert families == {family.name + ("_total" if family.type == "counter" else "") for family in podproof_metrics()}
    labels = {label for expression in expressions for label in re.findall(r"by \(([\w, ]+)\)", expression)}
    used = {label for family in podproof_metrics() for sample in family.samples for label in sample.labels}
    assert {label for group in labels for label in group.split(", ")} <= used
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def run(code: str, **environ: str) -> Any:
    """Run code in a new interpreter, and return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ONE_REQUEST = """
from contextlib import closing
from tests.support.fake_api import AuthenticatorFactory, Clock, FakeAPI
from tests.support.middleware_client import MiddlewareClient
def one_request(kind):
    make_authenticator = AuthenticatorFactory(FakeAPI(), Clock())
    with closing(make_authenticator()) as authenticator:
        return MiddlewareClient(kind, authenticator, lambda: None)().status
"""

WITHOUT = f"""
import json, sys
sys.modules["prometheus_client"] = sys.modules["opentelemetry"] = None
{ONE_REQUEST}
from podproof._telemetry import metrics, traces
print(json.dumps([one_request("wsgi"), one_request("asgi"), metrics.INSTALLED, traces.INSTALLED]))
"""

IN_TWO_PROCESSES = f"""
import json, os
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from podproof._telemetry import metrics
from podproof._token.jwt import read_claims
{ONE_REQUEST}
for _ in range(2):
    pid = os.fork()
    if not pid:
        one_request("wsgi")
        metrics.own_token_end.set(1800000000)
        os._exit(0)
    os.waitpid(pid, 0)
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(json.dumps({{
    sample.name + str(sorted(sample.labels.values())): sample.value
    for family in registry.collect()
    for sample in family.samples
}}))
"""


def test_without_the_optional_packages_requests_are_served() -> None:
    assert run(WITHOUT) == [200, 200, False, False]


def test_the_workers_of_one_server_share_their_metrics(tmp_path: Path) -> None:
    counted = run(IN_TWO_PROCESSES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert counted["podproof_decisions_total['allowed', 'authenticated']"] == 2
    assert counted["podproof_cache_lookups_total['identity', 'miss']"] == 2
    assert counted["podproof_token_remaining_seconds_count[]"] == 2
    assert counted["podproof_reviews_in_flight['token']"] == 0
    assert counted["podproof_own_token_expiration_timestamp_seconds[]"] == 1_800_000_000


WITHOUT_DIRECTORY = f"""
import json
{ONE_REQUEST}
from podproof._telemetry import metrics
print(json.dumps([one_request("wsgi"), metrics.INSTALLED, metrics.ENABLED]))
"""


@pytest.mark.parametrize("name", ["absent", ""])
def test_without_the_directory_of_several_processes_there_are_no_metrics(tmp_path: Path, name: str) -> None:
    directory = str(tmp_path / name) if name else ""
    assert run(WITHOUT_DIRECTORY, PROMETHEUS_MULTIPROC_DIR=directory) == [200, True, False]


def test_a_missing_directory_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert metrics._is_usable({})
    assert metrics._is_usable({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    assert caplog.records == []
    assert not metrics._is_usable({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "absent")})
    assert "metrics are off: PROMETHEUS_MULTIPROC_DIR names no directory" in caplog.text
