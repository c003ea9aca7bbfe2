from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = re.findall(r"^\| ([A-Z].*?) \| (.*?) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


def test_promises_are_found() -> None:
    assert len(PROMISES) >= 10


@pytest.mark.parametrize("shown_by", [tests for _, tests in PROMISES], ids=[promise[:40] for promise, _ in PROMISES])
def test_each_promise_names_what_shows_it(shown_by: str) -> None:
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]*)`", shown_by)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
