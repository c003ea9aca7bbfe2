from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.answers import API, Clock, Door
from tests.both import Bob
from tests.security.cases import pytest_terminal_summary  # noqa: F401  xdist's own process finds it only here


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


@pytest.fixture
def door(api: API, time: Clock) -> Iterator[Door]:
    door = Door(api, time)
    yield door
    for authenticator in door.made:
        authenticator.close()


@pytest.fixture(params=["wsgi", "asgi"])
def bob(request: pytest.FixtureRequest, door: Door) -> Callable[..., Bob]:
    """Make an app behind a middleware of each kind, with these options."""

    def make(inside: Callable[[], object] = lambda: None, **options: object) -> Bob:
        return Bob(request.param, door(**options), inside)

    return make
