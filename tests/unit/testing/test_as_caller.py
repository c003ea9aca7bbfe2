"""`as_caller`: code without a request has a caller in its block, and in the tasks that begin in it."""

from __future__ import annotations

import logging

import anyio
import pytest
from fastmcp import Client, FastMCP
from fastmcp.exceptions import ToolError

from podproof import PodIdentity, current_caller, require
from podproof.errors import NotAllowed
from podproof.testing import as_caller


@require("default/alice")
def restart() -> str:
    return "restarted"


def test_a_block_has_its_caller_and_no_other_code(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), as_caller("default/alice") as identity:
        assert current_caller() == identity
        assert (str(identity.service_account), str(identity.pod)) == ("default/alice", "default/alice")
        assert restart() == "restarted"
        with as_caller("default/carol"), pytest.raises(NotAllowed):
            restart()
        assert restart() == "restarted"
    assert current_caller() is None
    with pytest.raises(RuntimeError, match="PodAuthMiddleware"):
        restart()
    assert caplog.records == []


def test_an_identity_is_the_caller_as_it_is() -> None:
    with as_caller("default/alice") as made, as_caller(made) as identity:
        assert current_caller() is identity is made


def test_what_outlives_the_block_has_no_caller() -> None:
    seen: list[PodIdentity | None] = []

    async def scenario() -> None:
        ended = anyio.Event()

        async def look() -> None:
            seen.append(current_caller())
            await ended.wait()
            seen.append(current_caller())

        async with anyio.create_task_group() as tasks:
            with as_caller("default/alice"):
                tasks.start_soon(look)
                await anyio.wait_all_tasks_blocked()
            ended.set()

    anyio.run(scenario)
    assert [str(one and one.pod) for one in seen] == ["default/alice", "None"]


def test_a_client_that_is_handed_a_server_of_fastmcp_has_the_caller() -> None:
    server = FastMCP("bob")
    server.add_tool(restart)

    async def call(pod: str) -> object:
        with as_caller(pod):
            async with Client(server) as client:
                return (await client.call_tool("restart")).data

    assert anyio.run(call, "default/alice") == "restarted"
    with pytest.raises(ToolError):
        anyio.run(call, "default/carol")
