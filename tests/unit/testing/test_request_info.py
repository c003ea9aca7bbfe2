from __future__ import annotations

import pytest

from podproof.testing._emulator import request_info


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", ""])
def test_a_flag_in_the_query_is_set(value: str) -> None:
    assert request_info.is_flag_set({"watch": value}, "watch")


@pytest.mark.parametrize("query", [{}, {"watch": "0"}, {"watch": "false"}, {"watch": "False"}, {"other": "1"}])
def test_a_flag_that_is_false_or_missing_is_not_set(query: dict[str, str]) -> None:
    assert not request_info.is_flag_set(query, "watch")
