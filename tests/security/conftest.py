from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from tests.security.attacked_app import AttackEnv
from tests.security.case_counter import pytest_pyfunc_call  # noqa: F401  pytest finds hooks here
from tests.support.leak_detector import LeakDetector, capture_all_records


@pytest.fixture(scope="session")
def leak_detector() -> LeakDetector:
    return LeakDetector()


@pytest.fixture(autouse=True)
def no_token_leaks(
    without_coverage: None, leak_detector: LeakDetector, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    with capture_all_records(leak_detector.add_record):
        yield
    printed = capfd.readouterr()
    sys.stdout.write(printed.out)
    sys.stderr.write(printed.err)
    leak_detector.add_output("".join(printed))
    leak_detector.add_output(generate_latest().decode())
    leak_detector.assert_no_leak()
    leak_detector.clear()


@pytest.fixture(scope="session")
def attack_session() -> Iterator[AttackEnv]:
    with AttackEnv() as attack_env:
        yield attack_env


@pytest.fixture(scope="module")
def attack_env(attack_session: AttackEnv) -> Iterator[AttackEnv]:
    """Return one environment for all modules, whose apps end with the module."""
    yield attack_session
    attack_session.close_apps()
