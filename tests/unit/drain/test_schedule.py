"""When a drain ends, by moments that the tests own."""

from __future__ import annotations

from podproof.drain.schedule import stop_at
from podproof.drain.settings import DrainSettings

SETTINGS = DrainSettings(gap=15, max=300)


def test_without_traffic_the_drain_lasts_one_gap() -> None:
    assert stop_at(SETTINGS, since=1000, arrived=0) == 1015


def test_each_request_puts_the_end_off_to_one_gap_after_it() -> None:
    assert stop_at(SETTINGS, since=1000, arrived=1009) == 1024


def test_a_request_before_sigterm_does_not_shorten_the_gap() -> None:
    assert stop_at(SETTINGS, since=1000, arrived=999) == 1015


def test_callers_that_never_stop_are_left_when_the_time_is_up() -> None:
    assert stop_at(SETTINGS, since=1000, arrived=1299) == 1300


def test_a_gap_longer_than_the_drain_may_last_is_cut() -> None:
    assert stop_at(DrainSettings(gap=60, max=25), since=1000, arrived=0) == 1025
