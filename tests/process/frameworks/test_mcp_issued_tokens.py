"""MCP servers for agents with tokens of an exchange: the caller in each tool, its own sessions, and the metadata."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server.auth.middleware.auth_context import get_access_token
from starlette.applications import Starlette
from starlette.testclient import TestClient

from podproof._token.token_hash import token_hash
from podproof.errors import ConfigurationError
from podproof.exchange.asgi import IssuedTokenMiddleware as ASGIMiddleware
from podproof.mcp import IssuedTokenMiddleware
from tests.support.dpop_proofs import key_thumbprint, make_proof
from tests.support.issued_tokens import AUDIENCE, ISSUER, POD, issued_token, published_keys
from tests.support.mcp_client import Agent, MCPServerEnv, run_app
from tests.support.mcp_servers import APPS

RESOURCE = "http://bob.default.svc:8000/mcp"
METADATA = "/.well-known/oauth-protected-resource/mcp"
TWIN: Mapping[str, object] = {**POD, "pod": {"name": "alice-pod", "uid": "another-uid"}}
"""Another pod of Alice's name and service account."""


async def claims() -> str:
    """Return what the SDK's access token says of the caller."""
    token = get_access_token()
    assert token is not None
    return json.dumps([token.client_id, token.subject, token.token, token.scopes[3:], token.claims])


@pytest.fixture(params=APPS)
def make_app(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., IssuedTokenMiddleware]:
    """Return what makes the app of a server of the SDK, or of FastMCP, behind the middleware."""
    (tmp_path / "jwks.json").write_text(json.dumps(published_keys()))

    def make(**options: Any) -> IssuedTokenMiddleware:
        app: Starlette = APPS[request.param](claims)
        given = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(tmp_path / "jwks.json"), "dpop": "optional"}
        return IssuedTokenMiddleware(app, **{**given, **options})

    return make


def run(app: IssuedTokenMiddleware, scenario: Callable[[MCPServerEnv], Awaitable[None]]) -> None:
    async def main() -> None:
        async with run_app(app) as server:
            await scenario(server)

    anyio.run(main)


def agent(server: MCPServerEnv, **changes: Any) -> Agent:
    headers = {"Authorization": f"Bearer {issued_token(**changes)}"}
    return Agent(server.app, server.tasks, "10.0.0.7", headers)


def test_a_tool_knows_the_pod_that_the_token_was_issued_to(make_app: Callable[..., IssuedTokenMiddleware]) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        alice = agent(server, sub="user-7", act={"sub": "system:serviceaccount:default:alice"}, scope="read write")
        session = await alice.open_session()
        assert (await alice.call("whoami", session)).result == "default/alice-pod"
        client, subject, token, scopes, said = json.loads((await alice.call("claims", session)).result)
        assert (client, subject, token, scopes) == ("default/alice", "pod-uid", "", ["read", "write"])
        assert (said["sub"], said["act"], said["aud"]) == (
            "user-7",
            {"sub": "system:serviceaccount:default:alice"},
            [AUDIENCE],
        )
        plain = agent(server)
        *_, scopes, said = json.loads((await plain.call("claims", await plain.open_session())).result)
        assert (scopes, said["sub"], "act" in said) == ([], "system:serviceaccount:default:alice", False)

    run(make_app(), scenario)


def test_a_session_belongs_to_the_pod_whatever_its_token(make_app: Callable[..., IssuedTokenMiddleware]) -> None:
    async def scenario(server: MCPServerEnv) -> None:
        alice = agent(server)
        session = await alice.open_session()
        assert (await agent(server, jti="another").call("whoami", session)).status == 200
        for thief in (agent(server, pod=TWIN), agent(server, pod=TWIN, client_id="mallory")):
            assert (await thief.call("whoami", session)).status == 404
            assert (await thief.send("DELETE", mcp_session_id=session)).status == 404
        assert (await agent(server, aud="books").call("whoami", session)).status == 401
        assert (await alice.call("whoami", session)).result == "default/alice-pod"

    run(make_app(), scenario)


def test_each_request_needs_a_proof_of_its_own(make_app: Callable[..., IssuedTokenMiddleware]) -> None:
    token = issued_token(cnf={"jkt": key_thumbprint()})

    def proof(number: int) -> str:
        claims = {"htu": "http://127.0.0.1:8000/mcp", "htm": "POST", "ath": token_hash(token), "iat": time.time()}
        return make_proof({**claims, "jti": str(number)})

    async def scenario(server: MCPServerEnv) -> None:
        alice = Agent(server.app, server.tasks, "10.0.0.7", {"Authorization": f"DPoP {token}"})
        proved = [await alice.call("whoami", dpop=proof(number)) for number in (1, 2)]
        assert [one.status for one in proved] == [400, 400]  # the server's own: there is no session
        for headers in ({"dpop": proof(2)}, {}):
            assert (await alice.call("whoami", **headers)).status == 401
        bearer = Agent(server.app, server.tasks, "10.0.0.7", {"Authorization": f"Bearer {token}"})
        assert (await bearer.call("whoami", dpop=proof(3))).status == 401

    run(make_app(dpop="required"), scenario)


@pytest.mark.parametrize(
    ("dpop", "members"),
    [
        ("optional", {"bearer_methods_supported": ["header"]}),
        ("required", {"bearer_methods_supported": [], "dpop_bound_access_tokens_required": True}),
    ],
)
def test_metadata_names_the_exchange(
    make_app: Callable[..., IssuedTokenMiddleware], dpop: str, members: Mapping[str, object]
) -> None:
    client = TestClient(make_app(dpop=dpop, resource=RESOURCE))
    document = client.get(METADATA).json()
    assert document == {"resource": RESOURCE, "authorization_servers": [ISSUER], **members}
    challenges = client.post("/mcp").headers.get_list("WWW-Authenticate")
    assert [one.split(" ")[0] for one in challenges] == (["DPoP"] if dpop == "required" else ["DPoP", "Bearer"])
    for challenge in challenges:
        assert challenge.endswith(f', resource_metadata="http://bob.default.svc:8000{METADATA}"')


def test_help_shows_the_options_of_both() -> None:
    own = [*inspect.signature(IssuedTokenMiddleware).parameters]
    assert own == [*inspect.signature(ASGIMiddleware).parameters, "resource"]


@pytest.mark.parametrize("options", [{"resource": "bob"}, {"issuer": ""}, {"issuers": [ISSUER]}])
def test_a_wrong_option_stops_the_start(make_app: Callable[..., Any], options: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        make_app(**options)
