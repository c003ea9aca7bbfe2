"""The notes' own tests, with two agents, which know nothing of pods."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import anyio
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from tests.support.mcp_client import run_app

Connect = Callable[[str], Client[StreamableHttpTransport]]


@pytest.fixture
def connect(http_client_of: Callable[[str], Any]) -> Connect:
    def connect(name: str) -> Client[StreamableHttpTransport]:
        transport = StreamableHttpTransport("http://127.0.0.1:8000/mcp", httpx_client_factory=http_client_of(name))
        return Client(transport)

    return connect


def test_two_agents_share_their_notes(app_module: ModuleType, connect: Connect) -> None:
    async def scenario() -> None:
        async with run_app(app_module.app), connect("researcher") as researcher, connect("curator") as curator:
            assert {tool.name for tool in await curator.list_tools()} == {"add_note", "list_notes", "clear_notes"}
            assert (await researcher.call_tool("add_note", {"text": "tea is a leaf"})).data == 1
            assert (await curator.call_tool("add_note", {"text": "rye is a grain"})).data == 2
            assert (await researcher.call_tool("list_notes")).data == ["tea is a leaf", "rye is a grain"]
            [latest] = await researcher.read_resource("notes://latest")
            assert latest.text == "rye is a grain"
            assert (await curator.call_tool("clear_notes")).data == "cleared"
            assert (await researcher.call_tool("list_notes")).data == []

    anyio.run(scenario)


def test_without_a_network_it_is_a_server_as_well(app_module: ModuleType, curator: AbstractContextManager[Any]) -> None:
    async def scenario() -> None:
        with curator:
            async with Client(app_module.server) as client:
                assert (await client.call_tool("add_note", {"text": "tea"})).data == len(app_module.notes)
                assert (await client.call_tool("clear_notes")).data == "cleared"

    anyio.run(scenario)
