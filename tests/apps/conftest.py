"""Each app's own tests run on both versions of it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from podproof.testing import Cluster
from tests.apps.versions import VERSIONS, load


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def app_module(request: pytest.FixtureRequest, version: str) -> ModuleType:
    """Return the module of the app beside a test file."""
    return load(Path(str(request.path)).parent.name, version)


@pytest.fixture(autouse=True)
def pods(podproof_cluster: Cluster) -> Cluster:
    """Let the protected app find an API server: all that its own tests need besides."""
    return podproof_cluster
