"""How long somebody is known: not beyond the token's end, nor as the pod that was there before."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import time as real_time

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from podproof import PodIdentity, current_caller
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.options import Options
from podproof.testing import Cluster
from tests.process.frameworks.matrix import SERVERS, WSGI, Kind
from tests.support.fake_api import Clock
from tests.support.middleware_client import MiddlewareClient
from tests.support.server_process import SECONDS, Server, request, serving

ALICE, MALLORY, ELSEWHERE = "127.0.0.2", "127.0.0.3", "127.0.0.4"

Ask = Callable[..., PodIdentity | int]


class World:
    """A cluster, and a Bob in it, that live in the same time."""

    def __init__(self, cluster: Cluster, time: Clock, kind: str, stack: ExitStack) -> None:
        self.cluster = cluster
        self.time = time
        self._kind = kind
        self._stack = stack
        load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        self._client = APIServerClient(load=load, monotonic=time, sleep=time.passes)
        stack.callback(self._client.close)

    def bob(self, **given: object) -> Ask:
        """Return what asks a Bob with these options from an address, and gives whom he knows, or the status."""
        options = Options.read({"audience": "bob"} | given, {})
        verifier, pods = TokenReviewVerifier(self._client, options.audience), PodLookup(self._client)
        authenticator = Authenticator(options, verifier, pods, now=self.time, monotonic=self.time)
        self._stack.callback(authenticator.close)
        told: list[PodIdentity | None] = []
        bob = MiddlewareClient(self._kind, authenticator, lambda: told.append(current_caller()))

        def ask(token: str, peer: str = ALICE) -> PodIdentity | int:
            status = bob(headers={"Authorization": f"Bearer {token}"}, peer=peer).status
            known = told.pop() if status == 200 else None
            assert not told
            return known or status

        return ask


@pytest.fixture(params=["wsgi", "asgi"])
def world(request: pytest.FixtureRequest, time: Clock) -> Iterator[World]:
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(clock=time))
        yield World(cluster, time, request.param, stack)


def pod_of(caller: PodIdentity | int) -> str:
    assert isinstance(caller, PodIdentity)
    return caller.pod.uid


@pytest.mark.trap(30)
@pytest.mark.parametrize(("lifetime", "cache_ttl", "remembered"), [(3600, 60, 60), (600, 3600, 600), (30, 60, 30)])
def test_nobody_is_remembered_beyond_the_tokens_end(
    world: World, lifetime: int, cache_ttl: int, remembered: int
) -> None:
    alice = world.cluster.pod("default/alice-pod", addresses=[ALICE])
    ask, token = world.bob(cache_ttl=cache_ttl), alice.token("bob", lifetime=lifetime)
    assert pod_of(ask(token)) == alice.uid
    world.cluster.fail("refuse")
    world.time.passes(remembered - 0.001)
    assert pod_of(ask(token)) == alice.uid
    world.time.passes(0.001)
    assert ask(token) == 503
    world.cluster.heal()
    world.time.passes(lifetime - remembered + 61)
    assert ask(token) == 401


def test_each_rotated_token_has_a_time_of_its_own(world: World) -> None:
    alice = world.cluster.pod("default/alice-pod", addresses=[ALICE])
    ask, old = world.bob(cache_ttl=3600), alice.token("bob", lifetime=600)
    assert pod_of(ask(old)) == alice.uid
    world.time.passes(500)
    new = alice.token("bob", lifetime=600)
    assert pod_of(ask(new)) == alice.uid
    world.time.passes(161)
    assert ask(old) == 401
    assert pod_of(ask(new)) == alice.uid


@pytest.mark.trap(14)
def test_a_pod_made_anew_under_the_same_name_is_a_new_caller(world: World) -> None:
    first = world.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    ask, old = world.bob(), first.token("bob")
    assert pod_of(ask(old)) == first.uid
    first.remove()
    second = world.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    assert pod_of(ask(second.token("bob"))) == second.uid != first.uid
    # What was remembered of the first is never said of the second, and ends in its time.
    assert pod_of(ask(old)) == first.uid
    world.time.passes(60)
    assert ask(old) == 401
    assert pod_of(ask(second.token("bob"))) == second.uid


@pytest.mark.trap(14)
def test_where_nothing_is_remembered_a_pod_is_gone_with_its_name_taken(world: World) -> None:
    first = world.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    ask, old = world.bob(cache_ttl=0), first.token("bob")
    assert pod_of(ask(old)) == first.uid
    first.remove()
    world.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    # The API server remembers its own acceptance for 10 s, and it is the pod's UID that tells.
    assert ask(old) == 401


@pytest.mark.trap(21)
def test_an_address_given_to_another_pod_does_not_carry_the_old_identity(world: World) -> None:
    alice = world.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    mallory = world.cluster.pod("default/mallory-pod", service_account="mallory", addresses=[MALLORY])
    ask, hers, his = world.bob(), alice.token("bob"), mallory.token("bob")
    assert pod_of(ask(hers)) == alice.uid
    alice.update(addresses=[ELSEWHERE])
    mallory.update(addresses=[ALICE])
    world.time.passes(1)
    assert pod_of(ask(hers, ELSEWHERE)) == alice.uid
    assert pod_of(ask(his, ALICE)) == mallory.uid
    assert ask(hers, ALICE) == 403
    assert ask(his, MALLORY) == 403


@pytest.mark.trap(17)
def test_a_finished_pods_address_is_of_no_use_to_who_gets_it_and_has_the_token_too(world: World) -> None:
    alice = world.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    ask, token = world.bob(), alice.token("bob")
    assert pod_of(ask(token)) == alice.uid
    alice.update(phase="Succeeded")
    world.cluster.pod("default/mallory-pod", service_account="mallory", addresses=[ALICE])
    world.time.passes(60)
    assert ask(token) == 401


LIFETIME = 2
BLINK, LATE = 0.5, 5.0
"""Seconds of grace for a busy machine: for an event that was made in time, and for all to be closed."""

STAMP = re.compile(rb"\[([0-9.]+)\]")
HERE = {"uvicorn", "gunicorn, asgi", "hypercorn, trio", "granian, asgi", "gunicorn, gthread"}


def streamed(server: Server, token: str, path: str) -> bytes:
    """Return what comes of an answer until the server hangs up, in the middle of it."""
    head, _, body = server.send(ALICE, request(path, f"Authorization: Bearer {token}")).partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert not body.endswith(b"0\r\n\r\n")  # the end of a whole answer: RFC 9112 section 7.1
    return body


def talked(server: Server, token: str) -> bytes:
    """Return what a WebSocket says until the server closes it."""
    said: list[bytes] = []
    url, headers = f"ws://127.0.0.1:{server.port}/ws", {"Authorization": f"Bearer {token}"}
    with connect(url, additional_headers=headers, source_address=(ALICE, 0), proxy=None) as websocket:
        with pytest.raises(ConnectionClosedError) as closed:
            said.extend(iter(lambda: websocket.recv(SECONDS, decode=False), None))
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the caller's token has expired")
    return b"".join(said)


@pytest.mark.trap(31)
@pytest.mark.parametrize("kind", [one for one in SERVERS if one.name in HERE], ids=lambda kind: kind.name)
def test_what_is_open_ends_with_the_token(kind: Kind, cluster: Cluster, tmp_path: Path) -> None:
    alice = cluster.pod("default/alice-pod", addresses=[ALICE])
    environ = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(cluster.kubeconfig)}
    asks: list[Callable[[Server, str], bytes]] = [partial(streamed, path="/events")]
    if kind.frameworks is not WSGI:
        asks += [partial(streamed, path="/idle"), talked]
    app = "tests.security.endless_api:" + ("wsgi_app" if kind.frameworks is WSGI else "asgi_app")
    with serving([*kind.command[:-1], app], tmp_path, **environ) as server, ThreadPoolExecutor() as threads:
        end = int(real_time()) + LIFETIME
        token = alice.token("bob", lifetime=LIFETIME)
        for said in threads.map(lambda ask: ask(server, token), asks):
            stamps = [float(match[1]) for match in STAMP.finditer(said)]
            assert stamps
            assert max(stamps) < end + BLINK
        assert real_time() < end + LATE
        assert server.get(ALICE, None, "/healthz").status == 200
    assert token not in server.log.read_text()
