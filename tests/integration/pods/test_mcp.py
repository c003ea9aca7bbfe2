"""Bob of the examples as an MCP server, and agents in pods: who calls a tool, and whose a session is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests

URL = "http://bob/mcp"
_SESSION = Path(__file__).with_name("inside_session.py").read_text()


@pytest.fixture(scope="module")
def bob(deployed: None, kubectl: Kubectl, manifests: Manifests) -> Iterator[AppDeployment]:
    args = ["uvicorn", "--host=0.0.0.0", "--port=8080", "--no-proxy-headers", "examples.mcp_bob:app"]
    service, deployment = manifests.app("bob-mcp", args=args)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del container[probe]["httpGet"]
        container[probe]["tcpSocket"] = {"port": 8080}
    kubectl.apply(service, deployment)
    kubectl("rollout", "status", "deployment/bob-mcp", "--timeout", "90s")
    yield AppDeployment(kubectl, "bob-mcp")
    kubectl("delete", "deployment/bob-mcp", "service/bob-mcp", "--wait=false")


@pytest.fixture(scope="module")
def new_agent(bob: AppDeployment, new_caller: Callable[..., CallerPod]) -> Callable[..., CallerPod]:
    """Return a function that creates a pod, which knows Bob by that name: not every cluster has a DNS."""

    def make(name: str, service_account: str) -> CallerPod:
        aliases = [{"ip": bob.host, "hostnames": ["bob"]}]
        return new_caller(name, service_account=service_account, hostAliases=aliases)

    return make


@pytest.fixture(scope="module")
def alice(new_agent: Callable[..., CallerPod]) -> CallerPod:
    agent = new_agent("alice-agent", "alice")
    eventually(lambda: _responds(agent))
    return agent


@pytest.fixture(scope="module")
def mallory(new_agent: Callable[..., CallerPod]) -> CallerPod:
    return new_agent("mallory-agent", "mallory")


def call(agent: CallerPod, **environ: str) -> str:
    """Run the example's agent in a pod, and return what the tool says. Raises RuntimeError with what it fails with."""
    given = {"BOB_URL": URL, **environ}
    program = ("python3", "-m", "examples.callers.mcp_alice")
    return agent.run("env", *(f"{name}={value}" for name, value in given.items()), *program).strip()


def _responds(agent: CallerPod) -> bool:
    try:
        return bool(call(agent))
    except RuntimeError:  # connection refused: the Service has no endpoint yet
        return False


def send(agent: CallerPod, session: str = "") -> tuple[int, str | None]:
    """Return the status and the session of the response to a request that opens a session, or is in one."""
    response = json.loads(agent.run("python3", "-c", _SESSION, URL, session))
    return response["status"], response["session"]


def test_a_tool_knows_which_pod_calls_it(bob: AppDeployment, alice: CallerPod, mallory: CallerPod) -> None:
    for agent, account in ((alice, "alice"), (mallory, "mallory")):
        uid = agent.object["metadata"]["uid"]
        assert call(agent) == f"{agent.kubectl.namespace}/{account} in pod {agent}, for the SDK {uid}"


def test_a_stolen_token_is_denied_by_an_mcp_server(bob: AppDeployment, alice: CallerPod, mallory: CallerPod) -> None:
    mallory.run("sh", "-c", "cat > /dev/shm/stolen", stdin=alice.token())
    with pytest.raises(RuntimeError, match="MCPError: Server returned an error response"):
        call(mallory, PODPROOF_TOKEN_FILE="/dev/shm/stolen")
    assert bob.log_lines("wrong-address", f"pod={alice}", f"peer={mallory.address}")


def test_a_session_is_the_pods_that_has_opened_it(
    bob: AppDeployment, alice: CallerPod, mallory: CallerPod, new_agent: Callable[..., CallerPod]
) -> None:
    status, session = send(alice)
    assert status == 200
    assert session is not None
    twin = new_agent("alice-twin", "alice")
    assert [send(agent, session)[0] for agent in (alice, mallory, twin, alice)] == [200, 404, 404, 200]
