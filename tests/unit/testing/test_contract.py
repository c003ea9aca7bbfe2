"""The emulated API server answers as real ones of its version were recorded to answer (`--record`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.contract import CASES, comparable, emulated, lines

RECORDED = {path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.glob("recorded/*.json")}


NAMESPACE = "a-namespace-of-its-own"


@pytest.mark.parametrize(("version", "case"), [(version, case) for version in RECORDED for case in CASES])
def test_the_emulated_api_server_answers_as_a_real_one_did(version: str, case: str) -> None:
    with emulated(version, NAMESPACE) as side:
        assert lines(comparable(CASES[case](side), NAMESPACE)) == lines(RECORDED[version][case])


@pytest.mark.parametrize("case", CASES)
def test_a_newer_version_answers_with_the_same_statuses(case: str) -> None:
    with emulated("1.36", NAMESPACE) as side:
        answered = [answer.get("status") for answer in CASES[case](side)]
    assert answered == [answer.get("status") for answer in RECORDED["1.20"][case]]
