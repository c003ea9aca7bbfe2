"""Attacks on the sessions of MCP servers: another admitted pod has stolen what names a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

from starlette.types import ASGIApp

from podproof.testing import Cluster, EmulatedPod
from tests.support.mcp_client import PROTOCOL, Agent, HTTPExchange, MCPServerEnv, message, run_app

ALICE, MALLORY, TWIN = "10.0.0.7", "10.0.0.8", "10.0.0.9"


@dataclass
class Scene:
    """Alice with a session, one of whose events has an ID; Mallory has stolen both, and has a session of her own."""

    cluster: Cluster
    server: MCPServerEnv
    alice_pod: EmulatedPod
    mallory_pod: EmulatedPod
    alice: Agent
    mallory: Agent
    session: str
    event: str
    own_session: str
    own_event: str
    audience: str

    def twin(self) -> Agent:
        """Return a client in another pod of Alice's service account."""
        pod = self.cluster.pod(f"default/alice-{uuid4()}", service_account="alice", addresses=[TWIN])
        return self.server.agent(pod, self.audience)

    def restarted(self) -> Agent:
        """Return a client in a new pod with the name, the service account and the address of Alice's."""
        self.alice_pod.remove()
        pod = self.cluster.pod(f"default/{self.alice_pod.name}", service_account="alice", addresses=[ALICE])
        return self.server.agent(pod, self.audience)

    def mallory_with(self, token: str) -> Agent:
        """Return Mallory's client with another token."""
        return Agent(self.server.app, self.server.tasks, MALLORY, {"Authorization": f"Bearer {token}"})

    def alice_with(self, token: str) -> Agent:
        """Return a client at Alice's address with another token."""
        return Agent(self.server.app, self.server.tasks, ALICE, {"Authorization": f"Bearer {token}"})


Attack = Callable[[Scene], Awaitable[HTTPExchange]]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


@attack
async def calls_a_tool_in_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.call("whoami", scene.session)


@attack
async def lists_the_tools_of_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("POST", message("tools/list"), mcp_session_id=scene.session)


@attack
async def pings_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("POST", message("ping"), mcp_session_id=scene.session)


@attack
async def initializes_a_stolen_session_again(scene: Scene) -> HTTPExchange:
    about = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "mallory", "version": "1"}}
    return await scene.mallory.send("POST", message("initialize", **about), mcp_session_id=scene.session)


@attack
async def cancels_a_call_in_a_stolen_session(scene: Scene) -> HTTPExchange:
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    return await scene.mallory.send("POST", cancel, mcp_session_id=scene.session)


@attack
async def answers_a_request_of_the_server_in_a_stolen_session(scene: Scene) -> HTTPExchange:
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"action": "accept", "content": {}}}
    return await scene.mallory.send("POST", answer, mcp_session_id=scene.session)


@attack
async def posts_junk_to_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("POST", ["no message"], mcp_session_id=scene.session)


@attack
async def opens_the_stream_of_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("GET", mcp_session_id=scene.session)


@attack
async def takes_over_a_stream_that_is_open(scene: Scene) -> HTTPExchange:
    stream = scene.alice.start("GET", mcp_session_id=scene.session)
    await stream.wait_for(lambda: stream.status)
    taken = await scene.mallory.send("GET", mcp_session_id=scene.session)
    assert not stream.ended.is_set()
    stream.left.set()
    return taken


@attack
async def resumes_a_stream_of_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("GET", mcp_session_id=scene.session, last_event_id=scene.event)


@attack
async def resumes_a_stream_of_a_stolen_session_from_an_own_event(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("GET", mcp_session_id=scene.session, last_event_id=scene.own_event)


@attack
async def resumes_a_stolen_stream_in_an_own_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("GET", mcp_session_id=scene.own_session, last_event_id=scene.event)


@attack
async def resumes_a_stolen_stream_without_its_mark(scene: Scene) -> HTTPExchange:
    bare = scene.event.rpartition(".")[0]
    return await scene.mallory.send("GET", mcp_session_id=scene.own_session, last_event_id=bare)


@attack
async def resumes_a_stolen_stream_with_the_mark_of_an_own_event(scene: Scene) -> HTTPExchange:
    swapped = scene.event.rpartition(".")[0] + "." + scene.own_event.rpartition(".")[2]
    return await scene.mallory.send("GET", mcp_session_id=scene.own_session, last_event_id=swapped)


@attack
async def resumes_a_stream_with_a_guessed_number(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("GET", mcp_session_id=scene.own_session, last_event_id="0")


@attack
async def resumes_a_stolen_stream_behind_an_own_event(scene: Scene) -> HTTPExchange:
    both = [("Last-Event-ID", scene.own_event), ("Last-Event-ID", scene.event)]
    return await scene.mallory.send("GET", None, both, mcp_session_id=scene.own_session)


@attack
async def resumes_a_stolen_stream_without_a_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("GET", last_event_id=scene.event)


@attack
async def deletes_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("DELETE", mcp_session_id=scene.session)


@attack
async def deletes_a_stolen_session_by_an_old_version_of_the_protocol(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("DELETE", mcp_session_id=scene.session, mcp_protocol_version="2025-03-26")


@attack
async def puts_to_a_stolen_session(scene: Scene) -> HTTPExchange:
    return await scene.mallory.send("PUT", message("ping"), mcp_session_id=scene.session)


@attack
async def names_a_stolen_session_behind_an_own_one(scene: Scene) -> HTTPExchange:
    both = [("Mcp-Session-Id", scene.session), ("Mcp-Session-Id", scene.own_session)]
    return await scene.mallory.send("POST", message("tools/call", name="whoami", arguments={}), both)


@attack
async def names_a_stolen_session_in_one_header_with_an_own_one(scene: Scene) -> HTTPExchange:
    return await scene.mallory.call("whoami", f"{scene.own_session}, {scene.session}")


@attack
async def names_a_stolen_session_in_capitals(scene: Scene) -> HTTPExchange:
    return await scene.mallory.call("whoami", scene.session.upper())


@attack
async def uses_a_session_of_another_pod_of_the_same_service_account(scene: Scene) -> HTTPExchange:
    return await scene.twin().call("whoami", scene.session)


@attack
async def deletes_a_session_of_another_pod_of_the_same_service_account(scene: Scene) -> HTTPExchange:
    return await scene.twin().send("DELETE", mcp_session_id=scene.session)


@attack
async def resumes_a_stream_of_another_pod_of_the_same_service_account(scene: Scene) -> HTTPExchange:
    twin = scene.twin()
    return await twin.send("GET", mcp_session_id=await twin.open_session(), last_event_id=scene.event)


@attack
async def uses_a_session_after_a_restart_under_the_same_name(scene: Scene) -> HTTPExchange:
    return await scene.restarted().call("whoami", scene.session)


@attack
async def resumes_a_stream_after_a_restart_under_the_same_name(scene: Scene) -> HTTPExchange:
    return await scene.restarted().send("GET", mcp_session_id=scene.session, last_event_id=scene.event)


@attack
async def uses_a_session_when_its_pod_is_gone(scene: Scene) -> HTTPExchange:
    scene.alice_pod.remove()
    return await scene.alice.call("whoami", scene.session)


@attack
async def uses_a_session_with_its_pods_token_from_another_address(scene: Scene) -> HTTPExchange:
    return await scene.mallory_with(scene.alice_pod.token(scene.audience)).call("whoami", scene.session)


@attack
async def deletes_a_session_with_its_pods_token_from_another_address(scene: Scene) -> HTTPExchange:
    stolen = scene.mallory_with(scene.alice_pod.token(scene.audience))
    return await stolen.send("DELETE", mcp_session_id=scene.session)


@attack
async def uses_a_session_without_a_token(scene: Scene) -> HTTPExchange:
    return await Agent(scene.server.app, scene.server.tasks, ALICE, {}).call("whoami", scene.session)


@attack
async def uses_a_session_with_an_expired_token(scene: Scene) -> HTTPExchange:
    return await scene.alice_with(scene.alice_pod.token(scene.audience, lifetime=-90)).call("whoami", scene.session)


@attack
async def uses_a_session_with_a_token_for_another_server(scene: Scene) -> HTTPExchange:
    return await scene.alice_with(scene.alice_pod.token("carol")).call("whoami", scene.session)


@attack
async def uses_a_session_with_a_token_of_its_service_account_and_no_pod(scene: Scene) -> HTTPExchange:
    unbound = scene.cluster.service_account("default/alice").token(scene.audience)
    return await scene.alice_with(unbound).call("whoami", scene.session)


@attack
async def uses_a_session_with_what_the_sdk_finds_in_place_of_a_token(scene: Scene) -> HTTPExchange:
    return await scene.alice_with("podproof").call("whoami", scene.session)


@attack
async def uses_a_session_with_a_second_credential(scene: Scene) -> HTTPExchange:
    second = [("Authorization", "Bearer podproof")]
    body = message("tools/call", name="whoami", arguments={})
    return await scene.mallory.send("POST", body, second, mcp_session_id=scene.session)


@attack
async def offers_an_own_session_to_another_pod(scene: Scene) -> HTTPExchange:
    return await scene.alice.call("whoami", scene.own_session)


ENDS_ALICE = {
    "uses_a_session_after_a_restart_under_the_same_name",
    "resumes_a_stream_after_a_restart_under_the_same_name",
    "uses_a_session_when_its_pod_is_gone",
}
"""Attacks after which Alice's pod is there no more."""


@asynccontextmanager
async def run_scene(cluster: Cluster, app: ASGIApp, audience: str = "bob") -> AsyncIterator[Scene]:
    """Run the app of a server, with the sessions of both. One without an event store has events of no use."""
    alice_pod = cluster.pod(f"default/alice-{uuid4()}", service_account="alice", addresses=[ALICE])
    mallory_pod = cluster.pod(f"default/mallory-{uuid4()}", service_account="mallory", addresses=[MALLORY])
    async with run_app(app) as running:
        alice, mallory = running.agent(alice_pod, audience), running.agent(mallory_pod, audience)
        session, own_session = await alice.open_session(), await mallory.open_session()
        called, own_called = await alice.call("whoami", session), await mallory.call("whoami", own_session)
        [event, *_], [own_event, *_] = called.fields("id") or ["1.x"], own_called.fields("id") or ["2.y"]
        events = event, own_session, own_event
        yield Scene(cluster, running, alice_pod, mallory_pod, alice, mallory, session, *events, audience)


async def check(name: str, scene: Scene) -> None:
    result = await ATTACKS[name](scene)
    assert result.status in (400, 401, 403, 404), (result.status, result.body)
    assert b"alice" not in result.body
    assert scene.session not in str(result.headers)
