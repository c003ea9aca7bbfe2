"""The options of a drain and where they come from."""

from __future__ import annotations

import pytest

from podproof.drain.settings import DrainSettings, settings_from


def test_the_defaults_fit_kubernetes_own_grace_period() -> None:
    settings = settings_from({})
    assert settings == DrainSettings(gap=15, max=None, grace_period=30)
    assert settings.longest == 25


def test_every_option_is_read_from_the_environment() -> None:
    environ = {
        "PODPROOF_DRAIN_GAP": "2.5",
        "PODPROOF_DRAIN_MAX": "100",
        "PODPROOF_DRAIN_GRACE_PERIOD": "120",
        "PODPROOF_DRAIN_IGNORED_AGENTS": "kube-probe/, GoogleHC/",
        "PODPROOF_DRAIN_IGNORED_PATHS": "/healthz,/ready,",
    }
    assert settings_from(environ) == DrainSettings(
        gap=2.5,
        max=100,
        grace_period=120,
        ignored_agents=("kube-probe/", "GoogleHC/"),
        ignored_paths=("/healthz", "/ready"),
    )


def test_an_argument_goes_before_the_environment() -> None:
    assert settings_from({"PODPROOF_DRAIN_GAP": "2"}, gap=3).gap == 3


def test_the_drain_leaves_five_seconds_of_the_grace_period_to_requests_in_flight() -> None:
    assert DrainSettings(grace_period=300).longest == 295


def test_a_grace_period_too_short_for_that_leaves_no_drain() -> None:
    assert DrainSettings(grace_period=2).longest == 0


@pytest.mark.parametrize("text", ["", "soon", "15s"])
def test_a_variable_that_is_no_number_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="PODPROOF_DRAIN_GAP must be a number of seconds"):
        settings_from({"PODPROOF_DRAIN_GAP": text})


@pytest.mark.parametrize("name", ["GAP", "MAX", "GRACE_PERIOD"])
@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf"])
def test_a_time_that_is_not_positive_and_finite_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name.lower()} must be a positive number of seconds"):
        settings_from({f"PODPROOF_DRAIN_{name}": text})


@pytest.mark.parametrize(
    ("path", "agent", "counts"),
    [
        ("/", "curl/8", True),
        ("/", "", True),
        ("/", "kube-probe/1.33", False),
        ("/", "not kube-probe/1.33", True),
        ("/healthz", "curl/8", False),
        ("/healthz/deep", "curl/8", True),
    ],
)
def test_probes_and_named_paths_do_not_count(path: str, agent: str, counts: bool) -> None:
    assert DrainSettings(ignored_paths=("/healthz",)).counts(path, agent) is counts


def test_with_nothing_ignored_everything_counts() -> None:
    assert DrainSettings(ignored_agents=(), ignored_paths=()).counts("/healthz", "kube-probe/1.33")
