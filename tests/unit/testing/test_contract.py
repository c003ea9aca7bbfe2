"""The emulated API server gives the responses that real ones of its version were recorded to give (`--record`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.contract import CASES, comparable, emulated, lines

RECORDED = {path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.glob("recorded/*.json")}
NAMESPACE = "a-namespace-of-its-own"


def responses(version: str, case: str) -> list[dict[str, Any]]:
    with emulated(version, NAMESPACE) as side:
        return CASES[case](side)


@pytest.mark.parametrize("version", ["1.20", "1.36"])
def test_the_emulated_api_server_agrees_with_a_real_one_in_all_cases(version: str, subtests: pytest.Subtests) -> None:
    agree = 0
    for case in CASES:
        with subtests.test(case):
            assert lines(comparable(responses(version, case), NAMESPACE)) == lines(RECORDED[version][case])
            agree += 1
    print(f"v{version}: the emulated API server agrees in {agree} of {len(CASES)} cases")
    assert agree == len(CASES) == len(RECORDED[version]) == 50


@pytest.mark.parametrize("case", CASES)
def test_a_version_in_between_gives_the_statuses_of_an_older_or_a_newer_one(case: str) -> None:
    statuses = [response.get("status") for response in responses("1.30", case)]
    older, newer = ([response.get("status") for response in RECORDED[version][case]] for version in ("1.20", "1.36"))
    assert statuses in (older, newer)
