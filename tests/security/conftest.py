from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from prometheus_client import generate_latest

from tests.security.attacked_app import World
from tests.security.cases import pytest_pyfunc_call  # noqa: F401  pytest finds hooks here
from tests.support.leak_detector import Ears, every_record

# A machine may be slow at any moment: no deadline. Each run tries the same cases: a change alone makes a test fail.
settings.register_profile(
    "normal",
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long", max_examples=3000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "normal"))


@pytest.fixture(scope="session")
def ears() -> Ears:
    return Ears()


@pytest.fixture(autouse=True)
def no_token_is_heard(ears: Ears, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    with every_record(ears.hear_record):
        yield
    printed = capfd.readouterr()
    sys.stdout.write(printed.out)
    sys.stderr.write(printed.err)
    ears.hear("".join(printed))
    ears.hear(generate_latest().decode())
    ears.check()
    ears.forget()


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with World() as world:
        yield world
