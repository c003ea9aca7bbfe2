"""Sessions of MCP servers under attack: none of what another admitted pod has stolen opens one."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import ASGIApp

from podproof.mcp import PodAuthMiddleware
from podproof.testing import Cluster
from tests.security.mcp_attacks import ATTACKS, ENDS_ALICE, Scene, check, run_scene
from tests.support.mcp_servers import APPS, CountingEventStore


def make_app(server: str) -> ASGIApp:
    return PodAuthMiddleware(APPS[server](event_store=CountingEventStore()), audience="bob", cache_ttl=0)


@pytest.fixture(scope="module", params=APPS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module")
def scene(server: str, podproof_cluster_session: Cluster, portal: BlockingPortal) -> Iterator[Scene]:
    with (
        podproof_cluster_session.isolated() as cluster,
        portal.wrap_async_context_manager(run_scene(cluster, make_app(server))) as scene,
    ):
        yield scene


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 24


@pytest.mark.trap(67)
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ENDS_ALICE])
def test_nobody_gets_into_a_session_of_another_pod(name: str, scene: Scene, portal: BlockingPortal) -> None:
    portal.call(check, name, scene)
    called = portal.call(scene.alice.call, "whoami", scene.session)
    assert (called.status, called.result) == (200, f"default/{scene.alice_pod.name}")


@pytest.mark.trap(67)
@pytest.mark.parametrize("name", sorted(ENDS_ALICE))
@pytest.mark.parametrize("server", APPS)
def test_a_session_ends_with_its_pod(name: str, server: str, cluster: Cluster) -> None:
    async def scenario() -> None:
        async with run_scene(cluster, make_app(server)) as scene:
            await check(name, scene)

    anyio.run(scenario)
