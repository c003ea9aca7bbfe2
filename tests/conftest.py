from __future__ import annotations

import os

import pytest

from tests.answers import API, Clock


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "trap(*numbers): which dangers of tests/test_traps.py a test is about")


@pytest.fixture(autouse=True)
def no_options_around_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("PODPROOF_"):
            monkeypatch.delenv(name)


@pytest.fixture
def time() -> Clock:
    return Clock()


@pytest.fixture
def api() -> API:
    return API()
