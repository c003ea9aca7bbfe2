from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, settings

from podproof._request.context import current_request
from podproof.testing import Cluster
from tests.security.case_counter import pytest_terminal_summary  # noqa: F401  xdist's own process finds it only here
from tests.support.fake_api import AuthenticatorFactory, Clock, FakeAPI
from tests.support.installed_sizes import InstalledSizes
from tests.support.middleware_client import MiddlewareClient
from tests.support.modes import DEFAULT, MODES, Mode, make_in_mode, names_modes, take_turns
from tests.support.startup import wait_for_startup_check

# No deadline: the machine may be slow. Derandomized: every run tries the same cases, so only a change breaks a test.
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

# Collecting imports every framework, and frees nothing: a third of its time would be spent on looking for garbage.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(InstalledSizes())
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        sys.settrace(None)  # nothing is measured in the process that hands the tests out to others
    # Options of whoever runs the tests: they end here, before a fixture of any scope builds an app.
    for name in [*os.environ]:
        if name.startswith("PODPROOF_"):
            del os.environ[name]


@pytest.fixture(autouse=True)
def startup_checks_have_ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait for them before the environment, which their threads read, is as it was before the test."""
    yield
    wait_for_startup_check()


@pytest.fixture(autouse=True)
def no_request_is_current() -> None:
    """Forget the request of a WSGI test client whose response was not closed: a server would close it (PEP 3333)."""
    current_request.set(None)


@pytest.fixture(autouse=True)
def loggers_are_restored() -> Iterator[None]:
    """Undo what an app under test does to the root logger: Litestar's configures it."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def without_coverage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure nothing in this test and its servers, which doubles what they cost: other tests cover the same lines."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    trace, trace_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    yield
    threading.settrace(trace_threads)
    sys.settrace(trace)


@pytest.fixture
def time() -> Clock:
    return Clock()


@pytest.fixture
def cluster(podproof_cluster: Cluster) -> Cluster:
    return podproof_cluster


@pytest.fixture
def fake_api() -> FakeAPI:
    return FakeAPI()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once in each mode that the nearest `modes` marker names, the test of a trap in all without it."""
    definition = metafunc.definition
    marker = definition.get_closest_marker("modes")
    modes = MODES if marker is None and definition.get_closest_marker("trap") else marker and marker.args
    if modes and "mode" in metafunc.fixturenames and not names_modes(definition):
        metafunc.parametrize("mode", modes, ids=str, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = take_turns(items)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> Mode:
    """Return how tokens are verified and pods looked up in this test: by reviews and lookups without a marker."""
    mode: Mode = getattr(request, "param", DEFAULT)
    return mode


@pytest.fixture
def make_authenticator(fake_api: FakeAPI, time: Clock, mode: Mode) -> Iterator[AuthenticatorFactory]:
    make_authenticator = AuthenticatorFactory(fake_api, time, partial(make_in_mode, mode))
    yield make_authenticator
    for authenticator in make_authenticator.made:
        authenticator.close()


@pytest.fixture(params=["wsgi", "asgi"])
def make_client(
    request: pytest.FixtureRequest, make_authenticator: AuthenticatorFactory
) -> Callable[..., MiddlewareClient]:
    """Return what makes a client of an app behind each middleware, with these options."""

    def make(inside: Callable[[], object] = lambda: None, **options: object) -> MiddlewareClient:
        return MiddlewareClient(request.param, make_authenticator(**options), inside)

    return make
