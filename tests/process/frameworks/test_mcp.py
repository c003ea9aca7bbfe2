"""MCP servers of the SDK and of FastMCP behind podproof: the caller in each tool, and whatever else a server has."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import fastmcp
import pytest
from fastmcp.server.auth import TokenVerifier as FastMCPTokenVerifier
from fastmcp.server.auth import require_scopes
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from podproof import require
from podproof.errors import ConfigurationError
from podproof.mcp import PodAuthMiddleware, PodTokenVerifier
from podproof.testing import Cluster, EmulatedPod
from tests.support.mcp_client import MODERN, Agent, HTTPExchange, MCPServerEnv, message, run_app
from tests.support.mcp_servers import APPS, CountingEventStore, whoami

RESOURCE = "http://bob.default.svc:8000/mcp"
METADATA = "/.well-known/oauth-protected-resource/mcp"

MODES: Mapping[str, Mapping[str, Any]] = {
    "events": {},
    "JSON": {"json_response": True},
    "stateless": {"stateless": True},
    "resumable": {"event_store": CountingEventStore()},
}


@pytest.fixture
def alice(cluster: Cluster) -> EmulatedPod:
    return cluster.pod("default/alice-pod", service_account="alice", addresses=["10.0.0.7"])


@pytest.fixture
def carol(cluster: Cluster) -> EmulatedPod:
    return cluster.pod("batch/carol-pod", service_account="carol", addresses=["10.0.0.8"])


@pytest.fixture(params=APPS)
def make_app(request: pytest.FixtureRequest) -> Callable[..., Starlette]:
    """Return what makes the app of a server of the SDK, or of FastMCP."""
    return APPS[request.param]


class Decisions:
    """What has been logged since the last time."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return self._caplog.records

    def take(self) -> list[str]:
        """Return the messages of the decision log."""
        taken = [record.getMessage() for record in self.records if record.name == "podproof.audit"]
        self._caplog.clear()
        return taken


@pytest.fixture
def decisions(caplog: pytest.LogCaptureFixture) -> Decisions:
    caplog.set_level(logging.INFO, "podproof.audit")
    return Decisions(caplog)


Scenario = Callable[[MCPServerEnv], Awaitable[None]]


def run(app: Any, scenario: Scenario, **options: Any) -> None:
    """Run a scenario with an app behind podproof."""

    async def main() -> None:
        async with run_app(PodAuthMiddleware(app, **{"audience": "bob", **options})) as server:
            await scenario(server)

    anyio.run(main)


async def call(agent: Agent, tool: str, mode: str = "events") -> HTTPExchange:
    """Call a tool as a client does in a mode."""
    return await agent.call(tool, None if mode == "stateless" else await agent.open_session())


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_knows_who_calls_it(
    make_app: Callable[..., Starlette], mode: str, alice: EmulatedPod, carol: EmulatedPod
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        for pod, name in ((alice, "default/alice-pod"), (carol, "batch/carol-pod")):
            for tool in ("whoami", "whoami_in_thread"):
                assert (await call(server.agent(pod), tool, mode)).result == name

    run(make_app(**MODES[mode]), scenario)


def test_a_tool_knows_who_calls_it_in_the_protocol_without_sessions(
    make_app: Callable[..., Starlette], alice: EmulatedPod
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        called = await call_without_session(server.agent(alice), "whoami")
        assert called.result == "default/alice-pod"

    run(make_app(), scenario)


async def call_without_session(agent: Agent, tool: str, **headers: str) -> HTTPExchange:
    """Call a tool by the protocol that has no sessions, where each request says what it needs."""
    about = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = message("tools/call", name=tool, arguments={}, _meta=about)
    return await agent.send(
        "POST", body, mcp_protocol_version=MODERN, mcp_method="tools/call", mcp_name=tool, **headers
    )


def test_a_stolen_session_id_means_nothing_in_the_protocol_without_sessions(
    make_app: Callable[..., Starlette], alice: EmulatedPod, carol: EmulatedPod
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        session = await server.agent(alice).open_session()
        called = await call_without_session(server.agent(carol), "whoami", mcp_session_id=session)
        assert called.result == "batch/carol-pod"

    run(make_app(), scenario)


def test_calls_at_the_same_time_have_each_their_caller(
    make_app: Callable[..., Starlette], alice: EmulatedPod, carol: EmulatedPod
) -> None:
    here: list[str] = []
    all_here = anyio.Event()

    async def meet() -> str:
        here.append(await whoami())
        if len(here) == 4:
            all_here.set()
        await all_here.wait()
        return await whoami()

    async def scenario(server: MCPServerEnv) -> None:
        exchanges = []
        for pod in (alice, carol, alice, carol):
            agent = server.agent(pod)
            session = await agent.open_session()
            body = message("tools/call", name="meet", arguments={})
            exchanges.append((agent.start("POST", body, mcp_session_id=session), f"{pod.namespace}/{pod.name}"))
        for exchange, name in exchanges:
            await exchange.wait_for(exchange.ended.is_set)
            assert exchange.result == name

    run(make_app(meet), scenario)


def test_a_tool_that_outlives_its_request_has_no_caller(make_app: Callable[..., Starlette], alice: EmulatedPod) -> None:
    begun, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()
    seen: list[object] = []

    async def linger() -> str:
        seen.append(await whoami())
        begun.set()
        await go_on.wait()
        seen.append(await whoami())
        done.set()
        return "late"

    async def scenario(server: MCPServerEnv) -> None:
        agent = server.agent(alice)
        session = await agent.open_session()
        left = agent.start("POST", message("tools/call", name="linger", arguments={}), mcp_session_id=session)
        await begun.wait()
        left.left.set()
        await left.wait_for(left.ended.is_set)
        go_on.set()
        with anyio.fail_after(10):
            await done.wait()

    run(make_app(linger), scenario)
    assert seen == ["default/alice-pod", "nobody None None"]


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_may_require_a_service_account(
    make_app: Callable[..., Starlette],
    mode: str,
    alice: EmulatedPod,
    carol: EmulatedPod,
    decisions: Decisions,
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        assert (await call(server.agent(carol), "batch", mode)).result == "secret"
        decisions.take()
        denied = await call(server.agent(alice), "batch", mode)
        assert denied.messages[-1]["result"]["isError"]
        assert denied.result.endswith("403: The caller is not allowed here.")
        assert [record for record in decisions.records if record.levelno >= logging.ERROR] == []
        [line] = [line for line in decisions.take() if line.startswith("denied")]
        assert line.startswith("denied with 403 not-allowed: default/alice is not among batch/*")

    run(make_app(**MODES[mode]), scenario)


def test_a_tool_that_requires_a_caller_is_not_for_anonymous_ones(make_app: Callable[..., Starlette]) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        nobody = Agent(server.app, server.tasks, "10.0.0.9", {})
        assert (await call(nobody, "whoami")).result == "nobody None None"
        assert (await call(nobody, "batch")).result.endswith("401: A bearer token is needed.")

    run(make_app(), scenario, optional=True)


def test_a_session_goes_on_with_each_token_of_its_pod(make_app: Callable[..., Starlette], alice: EmulatedPod) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        session = await server.agent(alice).open_session()
        for audience in ("bob", "robert"):
            assert (await server.agent(alice, audience).call("whoami", session)).result == "default/alice-pod"

    run(make_app(), scenario, audience=["bob", "robert"])


def test_a_stream_is_resumed_by_its_pod_in_its_session(make_app: Callable[..., Starlette], alice: EmulatedPod) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        session = await server.agent(alice).open_session()
        called = await server.agent(alice).call("whoami", session)
        first, second = called.fields("id")
        resumed = server.agent(alice).start("GET", mcp_session_id=session, last_event_id=first)
        await resumed.wait_for(lambda: len(resumed.messages))
        assert resumed.result == "default/alice-pod"
        assert resumed.fields("id")[0] == second
        resumed.left.set()

    run(make_app(event_store=CountingEventStore()), scenario)


def test_a_denied_event_id_is_in_the_decision_log(
    make_app: Callable[..., Starlette], alice: EmulatedPod, decisions: Decisions
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        agent = server.agent(alice)
        session = await agent.open_session()
        decisions.take()
        denied = await agent.send("GET", mcp_session_id=session, last_event_id="0")
        assert (denied.status, denied.headers["content-type"]) == (403, "application/problem+json")
        [line] = decisions.take()
        assert line.startswith("denied with 403 not-allowed: the Last-Event-ID is not one that this pod was sent")

    run(make_app(event_store=CountingEventStore()), scenario)


def test_a_pod_ends_its_own_session(make_app: Callable[..., Starlette], alice: EmulatedPod) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        agent = server.agent(alice)
        session = await agent.open_session()
        assert (await agent.send("DELETE", mcp_session_id=session)).status == 200
        assert (await agent.call("whoami", session)).status == 404

    run(make_app(), scenario)


def test_an_open_stream_ends_with_its_token_and_the_session_goes_on(
    make_app: Callable[..., Starlette], alice: EmulatedPod
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        session = await server.agent(alice).open_session()
        short = {"Authorization": f"Bearer {alice.token('bob', lifetime=2)}"}
        stream = Agent(server.app, server.tasks, "10.0.0.7", short).start("GET", mcp_session_id=session)
        await stream.wait_for(stream.ended.is_set)
        assert stream.status == 200
        again = server.agent(alice).start("GET", mcp_session_id=session)
        await again.wait_for(lambda: again.status)
        assert again.status == 200
        again.left.set()

    run(make_app(), scenario)


def test_a_call_is_cancelled_in_its_own_session_alone(
    make_app: Callable[..., Starlette], alice: EmulatedPod, carol: EmulatedPod
) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def linger() -> str:
        begun.set()
        await go_on.wait()
        return await whoami()

    async def scenario(server: MCPServerEnv) -> None:
        agent, other = server.agent(alice), server.agent(carol)
        session, own_session = await agent.open_session(), await other.open_session()
        called = agent.start("POST", message("tools/call", name="linger", arguments={}), mcp_session_id=session)
        await begun.wait()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        assert (await other.send("POST", cancel, mcp_session_id=own_session)).status == 202
        go_on.set()
        await called.wait_for(called.ended.is_set)
        assert called.result == "default/alice-pod"

    run(make_app(linger), scenario)


def test_the_older_transport_binds_its_sessions_too(alice: EmulatedPod, carol: EmulatedPod) -> None:
    server_of_sdk = MCPServer("bob")
    server_of_sdk.add_tool(whoami)
    app = server_of_sdk.sse_app()
    for sse_app in (app, fastmcp.FastMCP("bob", tools=[whoami]).http_app(transport="sse")):

        async def scenario(server: MCPServerEnv) -> None:
            agent, other = server.agent(alice), server.agent(carol)
            agent.path = "/sse"
            stream = agent.start("GET")
            await stream.wait_for(lambda: stream.fields("data"))
            path, query = stream.fields("data")[0].split("?")
            agent.path = other.path = path
            agent.query = other.query = query
            assert (await other.send("POST", message("ping"))).status == 404
            assert (await agent.send("POST", message("ping"))).status == 202
            stream.left.set()
            await stream.wait_for(stream.ended.is_set)

        run(sse_app, scenario)


@pytest.mark.parametrize(("keep", "seen"), [(False, "Bearer podproof"), (True, None)])
def test_a_tool_sees_no_token_unless_it_is_kept(
    make_app: Callable[..., Starlette], alice: EmulatedPod, keep: bool, seen: str | None
) -> None:
    headers = alice.headers("bob")

    async def authorization(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.headers["Authorization"])

    app = make_app()
    app.router.routes.append(Route("/authorization", authorization))
    client = TestClient(PodAuthMiddleware(app, audience="bob", keep_authorization=keep), client=alice.peer)
    assert client.get("/authorization", headers=headers).text == (seen or headers["Authorization"])


def test_a_route_beside_the_tools_is_denied_by_the_middleware_s_response(
    make_app: Callable[..., Starlette], alice: EmulatedPod, decisions: Decisions
) -> None:
    @require("batch/*")
    async def batch(_: Request) -> PlainTextResponse:
        raise AssertionError

    app = make_app()
    app.router.routes.append(Route("/batch", batch))
    client = TestClient(PodAuthMiddleware(app, audience="bob"), client=alice.peer)
    response = client.get("/batch", headers=alice.headers("bob"))
    assert (response.status_code, response.headers["Content-Type"]) == (403, "application/problem+json")
    assert [line.split(":")[0] for line in decisions.take()] == ["denied with 403 not-allowed"]


def test_where_nothing_is_enforced_no_session_is_refused(
    make_app: Callable[..., Starlette], alice: EmulatedPod, carol: EmulatedPod, cluster: Cluster
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        session = await server.agent(alice).open_session()
        called = await server.agent(carol).call("whoami", session)
        assert called.result == "batch/carol-pod"
        nobody = Agent(server.app, server.tasks, "10.0.0.9", {})
        assert (await nobody.call("whoami", session)).result == "nobody None None"
        resumed = nobody.start("GET", mcp_session_id=session, last_event_id=called.fields("id")[0])
        await resumed.wait_for(lambda: len(resumed.messages))
        resumed.left.set()

    run(make_app(event_store=CountingEventStore()), scenario, enforce=False)


def test_metadata_tells_all_where_tokens_come_from(make_app: Callable[..., Starlette], cluster: Cluster) -> None:
    issuers = ["https://kubernetes.default.svc"]
    client = TestClient(PodAuthMiddleware(make_app(), audience="bob", resource=RESOURCE, issuers=issuers))
    response = client.get(METADATA)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert response.json() == {
        "resource": RESOURCE,
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
    }
    assert client.get(f"{METADATA}/more").status_code == 401


@pytest.mark.parametrize(("headers", "error"), [({}, ""), ({"Authorization": "Bearer x"}, ', error="invalid_token"')])
def test_a_challenge_names_the_metadata(
    make_app: Callable[..., Starlette], headers: Mapping[str, str], error: str, cluster: Cluster
) -> None:
    client = TestClient(PodAuthMiddleware(make_app(), audience="bob", resource=RESOURCE), client=("10.0.0.9", 1))
    challenge = client.post("/mcp", headers=headers).headers["WWW-Authenticate"]
    assert challenge == f'Bearer realm="bob"{error}, resource_metadata="http://bob.default.svc:8000{METADATA}"'


def test_there_is_no_metadata_without_a_resource(make_app: Callable[..., Starlette], cluster: Cluster) -> None:
    client = TestClient(PodAuthMiddleware(make_app(), audience="bob"))
    response = client.get(METADATA)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')


def test_an_invalid_resource_stops_the_start(make_app: Callable[..., Starlette]) -> None:
    with pytest.raises(ConfigurationError, match="invalid resource 'bob'"):
        PodAuthMiddleware(make_app(), audience="bob", resource="bob")
    sent: list[Message] = []

    async def start() -> None:
        app = PodAuthMiddleware(make_app(), audience="bob", resource="bob")

        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            sent.append(message)

        await app({"type": "lifespan"}, receive, send)

    anyio.run(start)
    [failed] = sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "invalid resource 'bob'" in failed["message"]


class People:
    """Verifies the tokens of people, as an app does that knows some."""

    async def verify_token(self, token: str) -> AccessToken | None:
        return AccessToken(token=token, client_id="shop", subject="dave", scopes=[]) if token == "of-dave" else None


async def subject() -> str:
    """Return who calls, as the SDK knows it."""
    token = get_access_token()
    assert token is not None
    return f"{token.client_id} {token.subject}"


def sdk_app_with_auth(*scopes: str) -> Starlette:
    auth = AuthSettings(
        issuer_url=AnyHttpUrl("https://login.example"),
        resource_server_url=AnyHttpUrl(RESOURCE),
        validate_token_resource=False,
        required_scopes=[*scopes],
    )
    server = MCPServer("bob", auth=auth, token_verifier=PodTokenVerifier(People()))
    server.add_tool(subject)
    return server.streamable_http_app()


class PodsAndPeople(FastMCPTokenVerifier):
    async def verify_token(self, token: str) -> Any:
        return await PodTokenVerifier(People()).verify_token(token)


def fastmcp_app_with_auth(*scopes: str) -> Starlette:
    auth = PodsAndPeople(base_url=RESOURCE.removesuffix("/mcp"), required_scopes=[*scopes])
    return fastmcp.FastMCP("bob", auth=auth, tools=[subject]).http_app()


WITH_AUTH = {"sdk": sdk_app_with_auth, "fastmcp": fastmcp_app_with_auth}


@pytest.mark.parametrize("make", WITH_AUTH.values(), ids=WITH_AUTH)
def test_a_server_with_an_authentication_of_its_own_has_pods_and_people(
    make: Callable[..., Starlette], alice: EmulatedPod, carol: EmulatedPod, cluster: Cluster
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        session = await server.agent(alice).open_session()
        called = await server.agent(alice).call("subject", session)
        assert called.result == f"default/alice {alice.uid}"
        dave = Agent(server.app, server.tasks, "10.0.0.9", {"Authorization": "Bearer of-dave"})
        daves = await dave.open_session()
        assert (await dave.call("subject", daves)).result == "shop dave"
        for other in (dave, server.agent(carol)):
            assert (await other.call("subject", session)).status == 404
        assert (await server.agent(alice).call("subject", daves)).status == 404
        for token in ("podproof", "of-eve"):
            nobody = Agent(server.app, server.tasks, "10.0.0.9", {"Authorization": f"Bearer {token}"})
            assert (await nobody.call("subject", session)).status == 401

    run(make(), scenario, other_credentials="pass", issuers=[cluster.issuer])


@pytest.mark.parametrize("make", WITH_AUTH.values(), ids=WITH_AUTH)
def test_a_server_may_require_the_scopes_of_a_caller(
    make: Callable[..., Starlette], alice: EmulatedPod, carol: EmulatedPod
) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        assert (await call(server.agent(alice), "subject")).result.startswith("default/alice ")
        assert (await server.agent(carol).call("subject")).status == 403

    run(make("namespace:default"), scenario)


def test_a_verifier_without_others_knows_no_one_outside_a_request() -> None:
    assert anyio.run(PodTokenVerifier().verify_token, "podproof") is None


def test_fastmcp_shows_a_tool_by_the_scopes_of_its_caller(alice: EmulatedPod, carol: EmulatedPod) -> None:
    server = fastmcp.FastMCP("bob")
    server.tool(auth=require_scopes("serviceaccount:default/alice"))(subject)

    async def scenario(server: MCPServerEnv) -> None:
        for pod, names in ((alice, ["subject"]), (carol, [])):
            agent = server.agent(pod)
            listed = await agent.send("POST", message("tools/list"), mcp_session_id=await agent.open_session())
            assert [tool["name"] for tool in listed.messages[-1]["result"]["tools"]] == names

    run(server.http_app(), scenario)
