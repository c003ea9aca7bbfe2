"""The example MCP servers on uvicorn, with two agents, each with its own pod's token, by the SDK's client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import fastmcp
import httpx2
import pytest
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from podproof import TokenClient
from podproof.testing import Cluster, EmulatedPod
from tests.support.server_process import ROOT, ServerProcess, run_server

MODES = ("legacy", "auto")
"""With sessions, and by the latest protocol that both sides speak."""


@asynccontextmanager
async def agent(server: ServerProcess, address: str, file: Path, mode: str) -> AsyncIterator[Client]:
    """Connect the SDK's client, from an address, with the token in a file."""
    transport = httpx2.AsyncHTTPTransport(local_address=address)
    async with (
        httpx2.AsyncClient(auth=TokenClient("bob", path=file).auth, transport=transport) as http,
        Client(streamable_http_client(f"http://127.0.0.1:{server.port}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def text(result: Any) -> str:
    return "".join(one.text for one in result.content)


@pytest.fixture
def pods(cluster: Cluster, tmp_path: Path) -> Mapping[str, tuple[EmulatedPod, str, Path]]:
    """Return Alice and Carol: their pods, their addresses, their token files."""
    found = {}
    for name, address in (("alice", "127.0.0.2"), ("carol", "127.0.0.3")):
        pod = cluster.pod(f"default/{name}-pod", service_account=name, addresses=[address])
        file = tmp_path / name
        file.write_text(pod.token("bob"))
        found[name] = (pod, address, file)
    return found


def test_two_agents_use_a_server_of_fastmcp(
    cluster: Cluster, tmp_path: Path, pods: Mapping[str, tuple[EmulatedPod, str, Path]]
) -> None:
    (alice, alice_address, alice_file), (_, carol_address, carol_file) = pods["alice"], pods["carol"]
    elsewhere = cluster.pod("default/dave-pod", service_account="dave", addresses=["127.0.0.4"])

    async def scenario(server: ServerProcess) -> None:
        for mode in MODES:
            async with (
                agent(server, alice_address, alice_file, mode) as first,
                agent(server, carol_address, carol_file, mode) as second,
            ):
                assert text(await first.call_tool("whoami", {})) == "default/alice"
                assert text(await second.call_tool("whoami", {})) == "default/carol"
                assert text(await second.call_tool("add_note", {"text": "mine"})) == "1"
                assert text(await first.call_tool("add_note", {"text": "one"})) == "1"
                alice_file.write_text(alice.token("bob"))
                assert text(await first.call_tool("add_note", {"text": "two"})) == "2"
                denied = await second.call_tool("clear_notes", {})
                assert (denied.is_error, text(denied)) == (True, "403: The caller is not allowed here.")
                assert text(await first.call_tool("clear_notes", {})) == "cleared"
        # FastMCP's own client; from 127.0.0.1, which is not the pod's address, it is denied.
        http = {"auth": cast("Any", TokenClient("bob", path=alice_file).auth)}
        with pytest.raises(Exception, match="error response"):
            async with fastmcp.Client(StreamableHttpTransport(f"http://127.0.0.1:{server.port}/mcp", **http)):
                raise AssertionError
        elsewhere.update(addresses=["127.0.0.1"])
        (tmp_path / "elsewhere").write_text(elsewhere.token("bob"))
        http = {"auth": cast("Any", TokenClient("bob", path=tmp_path / "elsewhere").auth)}
        async with fastmcp.Client(StreamableHttpTransport(f"http://127.0.0.1:{server.port}/mcp", **http)) as client:
            assert text(await client.call_tool("whoami")) == "default/dave"

    with serve("fastmcp_bob", cluster, tmp_path) as server:
        anyio.run(scenario, server)


def test_an_agent_uses_a_server_of_the_sdk_as_the_examples_say(cluster: Cluster, tmp_path: Path) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["127.0.0.1"])
    (tmp_path / "token").write_text(alice.token("bob"))
    with serve("mcp_bob", cluster, tmp_path) as server:
        environ = {
            **os.environ,
            "BOB_URL": f"http://127.0.0.1:{server.port}/mcp",
            "PODPROOF_TOKEN_FILE": str(tmp_path / "token"),
        }
        command = [sys.executable, str(ROOT / "examples/callers/mcp_alice.py")]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "default/alice" in done.stdout
    assert alice.uid in done.stdout


def serve(example: str, cluster: Cluster, folder: Path) -> Any:
    command = ["-m", "uvicorn", "--no-proxy-headers", "--port", "{port}", f"examples.{example}:app"]
    return run_server(command, folder, PODPROOF_AUDIENCE="bob", KUBECONFIG=str(cluster.kubeconfig))
