from __future__ import annotations

import pytest

from podproof.cli.durations import format_duration, format_time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (-59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
        (90000, "1 d 1 h"),
        (86400 * 365, "365 d"),
    ],
)
def test_a_duration_is_given_in_its_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_time_is_given_in_utc() -> None:
    assert format_time(0) == "1970-01-01 00:00:00 UTC"
