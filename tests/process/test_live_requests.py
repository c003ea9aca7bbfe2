"""A request is freed when it has ended: the middleware keeps none alive in the timers of a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from podproof.testing import Cluster
from tests.support.cluster_env import ClusterEnv
from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess, run_server

ALICE = "127.0.0.2"
CONNECTIONS, REQUESTS = 8, 500
"""Kept connections, and requests on each."""

TOLERANCE = CONNECTIONS
"""Live objects beyond those of the app without the middleware."""

IMPLEMENTATIONS = {"asyncio h11": ("asyncio", "h11"), "uvloop httptools": ("uvloop", "httptools")}


@pytest.fixture(scope="module")
def cluster_env() -> Iterator[ClusterEnv]:
    with Cluster() as cluster:
        env = ClusterEnv(cluster)
        env.add_pod("alice", ALICE)
        yield env


def send_many(server: ServerProcess, token: str, stack: ExitStack) -> None:
    """Send REQUESTS requests on one connection, which stays open until the stack is closed."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS, source_address=(ALICE, 0))
    stack.callback(connection.close)
    for _ in range(REQUESTS):
        connection.request("GET", "/", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"ok")


def count_live(app: str, loop: str, http: str, env: ClusterEnv, folder: Path) -> dict[str, int]:
    """Return the number of live objects in a uvicorn of this app, after many requests on connections that are open."""
    command = ["-m", "uvicorn", "--no-proxy-headers", "--no-access-log", "--lifespan", "off", "--port", "{port}"]
    command += ["--loop", loop, "--http", http, f"tests.process.live_requests_app:{app}"]
    folder.mkdir()
    with run_server(command, folder, **env.environ) as server, ExitStack() as stack:
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for _ in threads.map(partial(send_many, server, env.tokens["alice"]), [stack] * CONNECTIONS):
                pass
        live: dict[str, int] = server.get(ALICE, None, "/live").json
        return live


@pytest.mark.parametrize(("loop", "http"), IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_uvicorn_keeps_no_more_requests_alive_with_the_middleware_than_without(
    loop: str, http: str, cluster_env: ClusterEnv, tmp_path: Path
) -> None:
    bare = count_live("bare_app", loop, http, cluster_env, tmp_path / "bare")
    protected = count_live("protected_app", loop, http, cluster_env, tmp_path / "protected")
    assert bare["requests"] < TOLERANCE  # objects that exist once
    assert protected["scopes"] <= bare["scopes"] + TOLERANCE
    assert protected["requests"] <= bare["requests"] + TOLERANCE, protected
