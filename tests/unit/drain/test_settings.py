"""The options of a drain, where they come from, and when the drain they describe ends."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from podproof.drain.settings import HEALTH_CHECK_AGENTS, DrainOptions, DrainSettings, read_drain_settings
from podproof.options import Options


def test_the_defaults_fit_kubernetes_default_grace_period() -> None:
    settings = read_drain_settings({})
    assert settings == DrainSettings(idle_timeout=15, max=None, grace_period=30, ignored_agents=HEALTH_CHECK_AGENTS)
    assert settings.time_limit == 25


VARIABLES = {
    "PODPROOF_DRAIN_IDLE_TIMEOUT": "2.5",
    "PODPROOF_DRAIN_MAX": "100",
    "PODPROOF_DRAIN_GRACE_PERIOD": "120",
    "PODPROOF_DRAIN_IGNORED_AGENTS": "kube-probe/, GoogleHC/",
    "PODPROOF_DRAIN_IGNORED_PATHS": "/healthz,/ready,",
}


def test_every_option_is_read_from_the_environment() -> None:
    assert read_drain_settings(VARIABLES) == DrainSettings(
        idle_timeout=2.5,
        max=100,
        grace_period=120,
        ignored_agents=("kube-probe/", "GoogleHC/"),
        ignored_paths=("/healthz", "/ready"),
    )


@pytest.mark.parametrize("variable", [*VARIABLES, "PODPROOF_DRAIN_GAP"])
def test_the_middlewares_options_leave_the_drains_variables_alone(variable: str) -> None:
    assert Options.read({"audience": "bob"}, {variable: "1"}) == Options.read({"audience": "bob"}, {})


def test_an_argument_wins_over_the_environment() -> None:
    assert read_drain_settings({"PODPROOF_DRAIN_IDLE_TIMEOUT": "2"}, idle_timeout=3).idle_timeout == 3


def test_gap_is_the_old_name_of_idle_timeout() -> None:
    assert read_drain_settings({"PODPROOF_DRAIN_GAP": "2"}).idle_timeout == 2
    assert read_drain_settings({}, gap=2).idle_timeout == 2


@pytest.mark.parametrize("variable", ["PODPROOF_DRAIN_GAP", "PODPROOF_DRAIN_IDLE_TIMEOUT"])
@pytest.mark.parametrize("option", ["gap", "idle_timeout"])
def test_either_name_as_an_argument_wins_over_either_variable(option: str, variable: str) -> None:
    arguments: Any = {option: 3}
    assert read_drain_settings({variable: "2"}, **arguments).idle_timeout == 3


def test_idle_timeout_under_both_names_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^gap is the old name of idle_timeout: set only idle_timeout$"):
        read_drain_settings({}, gap=2, idle_timeout=2)


def test_idle_timeout_under_both_names_in_the_environment_is_an_error() -> None:
    environ = {"PODPROOF_DRAIN_GAP": "2", "PODPROOF_DRAIN_IDLE_TIMEOUT": "2"}
    message = (
        "^PODPROOF_DRAIN_GAP is the old name of PODPROOF_DRAIN_IDLE_TIMEOUT: set only PODPROOF_DRAIN_IDLE_TIMEOUT$"
    )
    with pytest.raises(ValueError, match=message):
        read_drain_settings(environ)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_counts_as_unset(text: str) -> None:
    assert read_drain_settings(dict.fromkeys(VARIABLES, text)) == DrainSettings()
    assert read_drain_settings({**VARIABLES, "PODPROOF_DRAIN_GAP": text}).idle_timeout == 2.5


def test_lists_are_given_as_sequences_or_with_commas() -> None:
    listed = read_drain_settings({}, ignored_agents=["a/", "b/"], ignored_paths=["/x"])
    assert listed == read_drain_settings({}, ignored_agents="a/, b/", ignored_paths="/x")
    assert listed == DrainSettings(ignored_agents=("a/", "b/"), ignored_paths=("/x",))


def test_a_blank_entry_of_a_list_does_not_match_every_request() -> None:
    assert read_drain_settings({}, ignored_agents=["", " "]).ignored_agents == ()
    assert read_drain_settings({"PODPROOF_DRAIN_IGNORED_AGENTS": ","}).ignored_agents == ()


@pytest.mark.parametrize(("grace_period", "time_limit"), [(300, 295), (2, 0)])
def test_five_seconds_of_the_grace_period_are_left_for_requests_in_flight(
    grace_period: float, time_limit: float
) -> None:
    assert DrainSettings(grace_period=grace_period).time_limit == time_limit


@pytest.mark.parametrize("text", ["soon", "15s", "-1", "nan", "inf"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GAP", "0 or more seconds"),
        ("IDLE_TIMEOUT", "0 or more seconds"),
        ("MAX", "more than 0 seconds"),
        ("GRACE_PERIOD", "more than 0 seconds"),
    ],
)
def test_an_invalid_duration_is_an_error_that_names_the_variable(name: str, expected: str, text: str) -> None:
    variable = f"PODPROOF_DRAIN_{name}"
    with pytest.raises(ValueError, match=f"^invalid {variable} '{text}': expected {expected}$"):
        read_drain_settings({variable: text})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idle_timeout": -1}, "^invalid idle_timeout -1: expected 0 or more seconds$"),
        ({"gap": None}, "^invalid gap None: expected 0 or more seconds$"),
        ({"max": 0}, "^invalid max 0: expected more than 0 seconds$"),
        ({"grace_period": 0}, "^invalid grace_period 0: expected more than 0 seconds$"),
        ({"ignored_agents": 7}, "^invalid ignored_agents 7: expected how User-Agents begin, separated by commas$"),
        ({"ignored_paths": [7]}, r"^invalid ignored_paths \[7\]: expected paths, separated by commas$"),
        ({"idle": 1}, "^unknown option 'idle': expected one of idle_timeout, gap, max, grace_period, ignored_agents, "),
    ],
)
def test_an_invalid_argument_is_an_error_that_says_what_was_expected(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_drain_settings({}, **options)


def test_an_idle_timeout_of_0_stops_at_once() -> None:
    settings = read_drain_settings({"PODPROOF_DRAIN_IDLE_TIMEOUT": "0"})
    assert settings.stop_time(drain_started=1000, last_request=999) == 1000


def test_every_option_has_its_type_for_editors() -> None:
    assert {*DrainOptions.__annotations__} == {*DrainSettings.__dataclass_fields__, "gap"}


# As these clients send them, from their source code, documentation or access logs.
HEALTH_CHECKS = [
    "kube-probe/1.33",
    "kube-probe/1.33+",
    "Knative-Activator-Probe",
    "Knative-Autoscaling-Probe",
    "Knative-Ingress-Probe",
    "Knative-Queue-Proxy-Probe",
    "Consul Health Check",
    "Envoy/HC",
    "ELB-HealthChecker/2.0",
    "GoogleHC/1.0",
    "Load Balancer Agent",
    "Edge Health Probe",
    "Azure Traffic Manager Endpoint Monitor",
    "Amazon-Route53-Health-Check-Service (ref 819f75f9-e072-49e6-9ec6-18a3c70016fd; report http://amzn.to/1vsZADi)",
    "Mozilla/5.0 (compatible; Cloudflare-Traffic-Manager/1.0; +https://www.cloudflare.com/; pool-id: 1)",
    "Mozilla/5.0 (compatible;Cloudflare-Healthchecks/1.0;+https://www.cloudflare.com/; healthcheck-id: 9d3d35aa92)",
    "Mozilla/5.0 (compatible; Cloudflare-Healthchecks/1.0; +https://www.cloudflare.com/; healthcheck-id: 9d3d35aa92)",
    "GoogleStackdriverMonitoring-UptimeChecks(https://cloud.google.com/monitoring)",
    "Prometheus/3.5.0",
    "Blackbox Exporter/0.27.0",
    "vm_promscrape",
    "GrafanaAgent/v0.44.0",
    "Alloy/v1.10.0 (linux; docker)",
    "OpenTelemetry Collector Contrib/0.131.0 (linux/amd64)",
    "otelcol-contrib/0.131.0 (linux/amd64)",
    "Datadog Agent/7.69.0",
]


@pytest.mark.parametrize("user_agent", HEALTH_CHECKS)
def test_a_health_check_does_not_keep_the_drain_open(user_agent: str) -> None:
    assert not DrainSettings().keeps_open("GET", "/", user_agent)
    assert not DrainSettings().keeps_open("HEAD", "/", user_agent)


def test_every_known_health_check_is_tried() -> None:
    assert [agent for agent in HEALTH_CHECK_AGENTS if not any(tried.startswith(agent) for tried in HEALTH_CHECKS)] == []


@pytest.mark.parametrize("user_agent", ["Prometheus/3.5.0", "OpenTelemetry Collector Contrib/0.131.0 (linux/amd64)"])
def test_metrics_that_are_pushed_keep_the_drain_open(user_agent: str) -> None:
    assert DrainSettings().keeps_open("POST", "/api/v1/write", user_agent)


@pytest.mark.parametrize(
    ("path", "user_agent", "keeps_open"),
    [
        ("/", "curl/8", True),
        ("/", "", True),
        ("/", "not kube-probe/1.33", True),
        ("/", "Mozilla/5.0 (compatible; Googlebot/2.1)", True),
        ("/healthz", "curl/8", False),
        ("/healthz/deep", "curl/8", True),
    ],
)
def test_every_other_request_keeps_the_drain_open_but_on_ignored_paths(
    path: str, user_agent: str, keeps_open: bool
) -> None:
    settings = DrainSettings(ignored_paths=("/healthz",))
    assert settings.keeps_open("GET", path, user_agent) is keeps_open


def test_with_nothing_ignored_every_request_keeps_the_drain_open() -> None:
    assert DrainSettings(ignored_agents=(), ignored_paths=()).keeps_open("GET", "/healthz", "kube-probe/1.33")


def test_the_documentation_lists_every_option_and_every_health_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "graceful-shutdown.md").read_text()
    options = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert options == [field.name for field in fields(DrainSettings)]
    assert [agent for agent in HEALTH_CHECK_AGENTS if f"`{agent}`" not in page] == []


SETTINGS = DrainSettings(idle_timeout=15, max=300)


def test_without_traffic_the_drain_lasts_the_idle_timeout() -> None:
    assert SETTINGS.stop_time(drain_started=1000, last_request=0) == 1015


def test_each_request_postpones_the_end_to_the_idle_timeout_after_it() -> None:
    assert SETTINGS.stop_time(drain_started=1000, last_request=1009) == 1024


def test_a_request_before_sigterm_does_not_shorten_the_drain() -> None:
    assert SETTINGS.stop_time(drain_started=1000, last_request=999) == 1015


def test_requests_that_never_stop_end_with_the_time_limit() -> None:
    assert SETTINGS.stop_time(drain_started=1000, last_request=1299) == 1300


def test_an_idle_timeout_longer_than_the_time_limit_is_cut() -> None:
    assert DrainSettings(idle_timeout=60, max=25).stop_time(drain_started=1000, last_request=0) == 1025
