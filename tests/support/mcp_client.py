"""An MCP server's app without a network, and clients that speak its HTTP: each from a pod of the emulated cluster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message

from tests.support.docs_stage import CallingPod

PROTOCOL = "2025-11-25"
"""The latest version of the protocol that has sessions."""

MODERN = "2026-07-28"
"""The first one that has none."""

TIMEOUT_SECONDS = 30


@dataclass
class HTTPExchange:
    """A request that may still be answered: what has arrived of its response so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    arrived: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)

    @property
    def session(self) -> str:
        return self.headers["mcp-session-id"]

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages of a body that is JSON or a stream of events."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            return [json.loads(value) for value in self.fields("data") if value]
        return [json.loads(self.body)] if self.body else []

    @property
    def result(self) -> Any:
        """The result of a call: the text of a tool, or the error."""
        last = self.messages[-1]
        if "error" in last:
            return last["error"]
        content = last["result"].get("content")
        return content[0]["text"] if content else last["result"]

    def fields(self, name: str) -> list[str]:
        """Return the values of a field of the events, in order."""
        lines = self.body.decode().splitlines()
        return [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]

    async def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something is true of what has arrived."""
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not condition():
                await self.arrived.wait()


@dataclass
class Agent:
    """A client of one MCP server, from a pod's address with a pod's token."""

    app: ASGIApp
    tasks: TaskGroup
    address: str
    headers: Mapping[str, str]
    path: str = "/mcp"
    query: str = ""

    def start(
        self, method: str, body: object = None, more: Sequence[tuple[str, str]] = (), /, **headers: str
    ) -> HTTPExchange:
        """Send a request, and return at once; a header's name is in lower case with underscores.

        `more` are header lines besides, which may have the names of others.
        """
        own = {"Host": "127.0.0.1:8000", "Accept": "application/json, text/event-stream", **self.headers}
        own |= {"mcp-protocol-version": PROTOCOL, "content-type": "application/json"}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        exchange = HTTPExchange()
        self.tasks.start_soon(self._run, exchange, method, body, [*own.items(), *more])
        return exchange

    async def send(
        self, method: str, body: object = None, more: Sequence[tuple[str, str]] = (), /, **headers: str
    ) -> HTTPExchange:
        """Send a request, and return it with its whole response."""
        exchange = self.start(method, body, more, **headers)
        with anyio.fail_after(TIMEOUT_SECONDS):
            await exchange.ended.wait()
        return exchange

    async def open_session(self) -> str:
        """Open a session, and return its ID."""
        about = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        opened = await self.send("POST", message("initialize", **about))
        assert opened.status == 200, opened.body
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await self.send("POST", ready, mcp_session_id=opened.session)).status == 202
        return opened.session

    async def call(self, tool: str, session: str | None = None, **headers: str) -> HTTPExchange:
        """Call a tool without arguments, in a session or without one."""
        body = message("tools/call", name=tool, arguments={})
        return await self.send("POST", body, mcp_session_id=session or "", **headers)

    async def _run(self, exchange: HTTPExchange, method: str, body: object, headers: Sequence[tuple[str, str]]) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers if value],
            "client": (self.address, 50000),
            "server": ("127.0.0.1", 8000),
        }
        unread = [{"type": "http.request", "body": b"" if body is None else json.dumps(body).encode()}]

        async def receive() -> Message:
            if unread:
                return unread.pop()
            await exchange.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            else:
                exchange.body += message.get("body", b"")
            arrived, exchange.arrived = exchange.arrived, anyio.Event()
            arrived.set()

        try:
            await self.app(scope, receive, send)
        except OSError:  # as servers take it: the response is broken off
            pass
        finally:
            exchange.ended.set()
            exchange.arrived.set()


@dataclass
class MCPServerEnv:
    """A running MCP server, and what calls it."""

    app: ASGIApp
    tasks: TaskGroup

    def agent(self, pod: CallingPod, audience: str = "bob", **headers: str) -> Agent:
        """Return a client in a pod, with a new token for an audience."""
        return Agent(self.app, self.tasks, pod.peer[0], pod.headers(audience) | headers)


@asynccontextmanager
async def run_app(app: ASGIApp) -> AsyncIterator[MCPServerEnv]:
    """Run an app's lifespan, as a server does; what is still open at the end is left."""
    started, stopping, stopped = anyio.Event(), anyio.Event(), anyio.Event()
    begin = [{"type": "lifespan.startup"}]

    async def receive() -> Message:
        if begin:
            return begin.pop()
        await stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        assert message["type"].endswith(".complete"), message
        (started if "startup" in message["type"] else stopped).set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_call, app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        await started.wait()
        yield MCPServerEnv(app, tasks)
        stopping.set()
        await stopped.wait()
        tasks.cancel_scope.cancel()


async def _call(app: ASGIApp, *arguments: Any) -> None:
    await app(*arguments)


def message(method: str, **params: object) -> dict[str, object]:
    """Return a JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
