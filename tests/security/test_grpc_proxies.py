"""A real Envoy in front of gRPC, over HTTP/2: its metadata is believed where it is named in `trusted_proxies`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from podproof import current_caller
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._request.setup import build_authenticator
from podproof.options import Options
from podproof.testing import Cluster
from tests.security import envoy
from tests.security.proxy_process import ADDRESS
from tests.support.grpc_servers import (
    FLAVOURS,
    KINDS,
    AsyncEchoService,
    EchoService,
    EventLoopThread,
    Metadata,
    bearer,
    handlers_of,
    run_grpc_server,
    status_of,
)

ALICE, MALLORY = "127.0.0.2", "127.0.0.3"
"""Mallory has stolen Alice's token."""


class Relay:
    """Passes connections on to a port from an address of its own: a channel of gRPC cannot choose one."""

    def __init__(self, loop: EventLoopThread, source: str, target: str) -> None:
        self._source = source
        self._host, _, self._port = target.rpartition(":")
        self._server = loop.run(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._host, self._port, local_addr=(self._source, 0))
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    async def close(self) -> None:
        self._server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Place:
    """A server, Envoy in front of it, Alice's token, and whom the server's handlers were reached by."""

    def __init__(self, stack: ExitStack, flavour: str, cluster: Cluster, folder: pytest.TempPathFactory) -> None:
        self.token = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE]).token("bob")
        self.callers: list[str] = []
        load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        client = APIServerClient(load=load)
        stack.callback(client.close)
        options = Options.read({"audience": "bob", "trusted_proxies": f"{ADDRESS}/31"}, {})
        authenticator = build_authenticator(options, client)
        stack.callback(authenticator.close)
        loop = EventLoopThread()
        stack.callback(loop.close)
        service = AsyncEchoService(self._reached) if flavour == "aio" else EchoService(self._reached)
        server = run_grpc_server(flavour, loop, [handlers_of(service)], authenticator=authenticator)
        direct = stack.enter_context(server)
        proxy = stack.enter_context(envoy.in_front_of_grpc(int(direct.rpartition(":")[2]), folder.mktemp("proxy")))
        self._relays = {
            (source, target): Relay(loop, source, target) for source in (ALICE, MALLORY) for target in (direct, proxy)
        }
        for relay in self._relays.values():
            stack.callback(loop.run, relay.close())
        self._direct, self._proxy = direct, proxy

    def _reached(self, _: object) -> None:
        caller = current_caller()
        assert caller is not None
        self.callers.append(caller.service_account.name)

    def status(self, proxy: str | None, source: str, metadata: Metadata = (), *, kind: str = "unary_unary") -> str:
        """Call with Alice's token from an address, through Envoy as one of its kinds, or directly."""
        target = self._relays[source, self._proxy if proxy else self._direct].target
        return status_of(target, kind, [*bearer(self.token), *metadata], authority=proxy)


@pytest.fixture(scope="module", params=FLAVOURS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack, request.param, stack.enter_context(Cluster()), tmp_path_factory)


PROXIES = ("appends", "overwrites", "forwarded", "underscores", "both", "twice")

FORGED: dict[str, Metadata] = {
    "one entry": [("x-forwarded-for", ALICE)],
    "a list": [("x-forwarded-for", f"{ALICE}, {MALLORY}, {ALICE}")],
    "two entries": [("x-forwarded-for", MALLORY), ("x-forwarded-for", ALICE)],
    "through the proxy itself": [("x-forwarded-for", f"{ALICE}, {ADDRESS}")],
    "underscores": [("x_forwarded_for", ALICE)],
    "forwarded": [("forwarded", f"for={ALICE}")],
    "a quote left open": [("forwarded", f'for={ALICE};x="')],
    "both": [("x-forwarded-for", ALICE), ("forwarded", f"for={ALICE}")],
    "other names": [("x-real-ip", ALICE), ("x-envoy-external-address", ALICE), ("client-ip", ALICE)],
    "in binary": [("x-forwarded-for-bin", ALICE.encode())],
}


@pytest.mark.trap(22)
@pytest.mark.parametrize("kind", KINDS)
def test_behind_envoy_the_address_of_the_caller_is_compared(place: Place, kind: str) -> None:
    place.callers.clear()
    for proxy in PROXIES:
        assert place.status(proxy, ALICE, kind=kind) == "OK", proxy
        assert place.status(proxy, MALLORY, kind=kind) == "PERMISSION_DENIED", proxy
    assert place.callers == ["alice"] * len(PROXIES)


@pytest.mark.trap(22)
@pytest.mark.parametrize("proxy", [*PROXIES, None])
def test_no_metadata_of_the_caller_changes_its_address(place: Place, proxy: str | None) -> None:
    place.callers.clear()
    for name, metadata in FORGED.items():
        assert place.status(proxy, MALLORY, metadata) == "PERMISSION_DENIED", name
    assert place.callers == []


@pytest.mark.trap(22)
def test_what_was_written_before_envoy_is_skipped(place: Place) -> None:
    for value in ("10.0.0.1", "junk, unknown", MALLORY):
        assert place.status("appends", ALICE, [("x-forwarded-for", value)]) == "OK"
    for value in ("for=10.0.0.1", "for=unknown, proto=https", f"for={MALLORY}"):
        assert place.status("forwarded", ALICE, [("forwarded", value)]) == "OK"


@pytest.mark.trap(22)
def test_an_envoy_that_is_not_named_is_not_believed(place: Place) -> None:
    assert place.status("unbound", ALICE) == "PERMISSION_DENIED"
    assert place.status(None, ALICE) == "OK"


@pytest.mark.trap(34)
@pytest.mark.parametrize("proxy", ["appends", "twice"])
def test_two_tokens_are_denied_whatever_envoy_makes_of_them(place: Place, proxy: str) -> None:
    place.callers.clear()
    for second in (place.token, "x.y.z", ""):
        assert place.status(proxy, ALICE, bearer(second)) == "UNAUTHENTICATED"
    assert place.callers == []
