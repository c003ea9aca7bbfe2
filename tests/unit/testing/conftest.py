from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from podproof.testing import Cluster
from tests.integration.contract import Side, access

if TYPE_CHECKING:
    from collections.abc import Iterator


class WallClock:
    """Unix seconds that go by when a test says so."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def cluster(clock: WallClock) -> Iterator[Cluster]:
    with Cluster(clock=clock) as started:
        yield started


@pytest.fixture
def side(cluster: Cluster, clock: WallClock) -> Iterator[Side]:
    """Return the contract suite's way of asking, in the namespace `default-2`."""
    with access(str(cluster.kubeconfig)) as way:
        yield Side(way, "default-2", clock.wait, str, patience=0.1)
