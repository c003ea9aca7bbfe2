"""What the tests of the notes have to have besides, since agents are pods: each connects as its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import httpx2
import pytest

from podproof.testing import as_caller, as_pod

HTTPClient = Callable[..., httpx2.AsyncClient]


@pytest.fixture
def http_client_of(version: str, app_module: ModuleType) -> Callable[[str], HTTPClient]:
    """Return what makes the HTTP client of an agent, by its name."""

    def http_client_of(name: str) -> HTTPClient:
        def make(**given: Any) -> httpx2.AsyncClient:
            client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app_module.app), **given)
            return as_pod(client, f"default/{name}") if version == "after" else client

        return make

    return http_client_of


@pytest.fixture
def curator(version: str) -> AbstractContextManager[Any]:
    """Return what has to be around a client that is handed the server itself."""
    return as_caller("default/curator") if version == "after" else nullcontext()
