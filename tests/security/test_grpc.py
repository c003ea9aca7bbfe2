"""gRPC under attack: bad credentials and tricks with metadata, in each kind of call, on each kind of server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import grpc
import pytest

from podproof import current_caller
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._request.setup import build_mode
from podproof.options import Options
from podproof.testing import Cluster
from tests.security.grpc_attacks import DENIED, ELSEWHERE, LOCAL, bad_credentials
from tests.support.grpc_servers import (
    FLAVOURS,
    KINDS,
    AsyncEchoService,
    EchoService,
    EventLoopThread,
    Metadata,
    bearer,
    call,
    handlers_of,
    run_grpc_server,
    status_of,
)
from tests.support.leak_detector import LeakDetector
from tests.support.modes import MODES, Mode


class GRPCEnv:
    """A server of each flavour in one cluster, and whom their handlers were reached by."""

    def __init__(self, stack: ExitStack, cluster: Cluster, mode: Mode) -> None:
        self.mode = mode
        self.cluster = cluster
        self._stack = stack
        load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        self._client = APIServerClient(load=load)
        stack.callback(self._client.close)
        self.alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[LOCAL])
        self.token = self.alice.token("bob")
        self.callers: list[Any] = []
        loop = EventLoopThread()
        stack.callback(loop.close)
        self.targets = {flavour: stack.enter_context(self._serve(flavour, loop)) for flavour in FLAVOURS}

    def _serve(self, flavour: str, loop: EventLoopThread) -> Any:
        def inside(context: Any) -> None:
            assert "authorization" not in dict(context.invocation_metadata())
            self.callers.append(current_caller())

        service = AsyncEchoService(inside) if flavour == "aio" else EchoService(inside)
        options = Options.read({"audience": "bob"} | self.mode.options, {})
        parts = build_mode(options, self._client, [])
        authenticator = Authenticator(
            options, parts.verifier, parts.pods, max_rejections=1_000_000, on_close=parts.close
        )
        self._stack.callback(authenticator.close)
        return run_grpc_server(flavour, loop, [handlers_of(service)], authenticator=authenticator)


@pytest.fixture(scope="module", params=MODES, ids=str)
def env(request: pytest.FixtureRequest) -> Iterator[GRPCEnv]:
    with ExitStack() as stack:
        yield GRPCEnv(stack, stack.enter_context(Cluster()), request.param)


def in_turn(credentials: Mapping[str, Metadata], flavour: str, kind: str, mode: Mode) -> Mapping[str, Metadata]:
    """Return those of one mode: each kind of call has all, in one mode each; each mode has all, in one kind each."""
    start = FLAVOURS.index(flavour) * len(KINDS) + KINDS.index(kind) + MODES.index(mode)
    return dict([*credentials.items()][start % len(MODES) :: len(MODES)])


@pytest.fixture(scope="module")
def credentials(env: GRPCEnv) -> Mapping[str, Metadata]:
    return bad_credentials(env.cluster, env.alice, "bob")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_bad_credential_reaches_a_handler(
    env: GRPCEnv, credentials: Mapping[str, Metadata], leak_detector: LeakDetector, flavour: str, kind: str
) -> None:
    target = env.targets[flavour]
    env.callers.clear()
    assert call(target, kind, bearer(env.token)) == [b"one"]
    assert [str(caller.pod) for caller in env.callers] == ["default/alice-pod"]
    env.callers.clear()
    for name, metadata in in_turn(credentials, flavour, kind, env.mode).items():
        for _, value in metadata:
            leak_detector.add_secret(value)
        wanted = DENIED | {"RESOURCE_EXHAUSTED"} if name.startswith("long") else DENIED  # by gRPC itself
        assert status_of(target, kind, metadata) in wanted, name
    assert env.callers == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_good_token_is_accepted_beside_whatever_else_is_sent(env: GRPCEnv, flavour: str, kind: str) -> None:
    beside: list[Metadata] = [
        [("authorization-bin", b"\xff\x00")],
        [("x-forwarded-for", ELSEWHERE)],
        [("x-forwarded-for-bin", LOCAL.encode()), ("podproof.identity", "default/mallory"), ("remote-user", "root")],
    ]
    for more in beside:
        env.callers.clear()
        assert status_of(env.targets[flavour], kind, [*more, *bearer(env.token)]) == "OK"
        assert [str(caller.pod) for caller in env.callers] == ["default/alice-pod"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_address_that_stands_in_the_metadata_is_not_believed(env: GRPCEnv, flavour: str) -> None:
    """A proxy that is not named may have put it in the place of the caller's."""
    metadata = [*bearer(env.token), ("x-forwarded-for", LOCAL)]
    assert status_of(env.targets[flavour], "unary_unary", metadata) == "PERMISSION_DENIED"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_denials_of_one_family_are_told_apart_by_nothing(
    env: GRPCEnv, credentials: Mapping[str, Metadata], flavour: str
) -> None:
    seen = set()
    for name in ("forged", "of another audience", "expired", "not of a pod", "of a pod that is gone", "not a JWT"):
        with pytest.raises(grpc.RpcError) as raised:
            call(env.targets[flavour], "unary_unary", credentials[name])
        trailers: Any = raised.value.trailing_metadata()
        seen.add((raised.value.code(), raised.value.details(), tuple(key for key, _ in trailers)))
    assert seen == {(grpc.StatusCode.UNAUTHENTICATED, "The token is not accepted here.", ("x-request-id",))}
