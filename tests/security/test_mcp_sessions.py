"""Sessions of MCP servers under attack: none of what another admitted pod has stolen opens one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import ASGIApp

from podproof._request.setup import build_authenticator
from podproof.mcp import PodAuthMiddleware
from podproof.options import Options
from podproof.testing import Cluster
from tests.security.mcp_attacks import ATTACKS, ENDS_ALICE, Scene, check, run_scene
from tests.support.mcp_servers import APPS, CountingEventStore
from tests.support.modes import DEFAULT, MODES, Mode


@contextmanager
def make_app(server: str, mode: Mode = DEFAULT) -> Iterator[ASGIApp]:
    """Give the app of a server, which verifies tokens in a mode."""
    authenticator = build_authenticator(Options.read({"audience": "bob", "cache_ttl": 0} | mode.options, {}))
    try:
        yield PodAuthMiddleware(APPS[server](event_store=CountingEventStore()), authenticator=authenticator)
    finally:
        authenticator.close()


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module")
def scene(request: pytest.FixtureRequest, podproof_cluster_session: Cluster, portal: BlockingPortal) -> Iterator[Scene]:
    with (
        podproof_cluster_session.isolated() as cluster,
        make_app(*request.param) as app,
        portal.wrap_async_context_manager(run_scene(cluster, app)) as scene,
    ):
        yield scene


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 24


def with_scenes() -> Iterator[Any]:
    """Yield each attack with two servers in two modes: each pair has its turn."""
    scenes = [*zip(cycle(APPS), MODES)]
    for number, name in enumerate(name for name in ATTACKS if name not in ENDS_ALICE):
        for server, mode in (scenes[number % len(scenes)], scenes[(number + 1) % len(scenes)]):
            yield pytest.param(name, (server, mode), id=f"{name}-{server}-{mode}")


@pytest.mark.trap(67)
@pytest.mark.parametrize(("name", "scene"), [*with_scenes()], indirect=["scene"], scope="module")
def test_nobody_gets_into_a_session_of_another_pod(name: str, scene: Scene, portal: BlockingPortal) -> None:
    portal.call(check, name, scene)
    called = portal.call(scene.alice.call, "whoami", scene.session)
    assert (called.status, called.result) == (200, f"default/{scene.alice_pod.name}")


@pytest.mark.trap(67)
@pytest.mark.parametrize("name", sorted(ENDS_ALICE))
@pytest.mark.parametrize("server", APPS)
def test_a_session_ends_with_its_pod(name: str, server: str, cluster: Cluster) -> None:
    async def scenario() -> None:
        async with run_scene(cluster, app) as scene:
            await check(name, scene)

    with make_app(server) as app:
        anyio.run(scenario)
