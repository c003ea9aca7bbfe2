"""How long a result is cached: never beyond the token's expiry, and never for another pod."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from podproof import PodIdentity, current_caller
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._request.setup import build_mode
from podproof.options import Options
from podproof.testing import Cluster
from podproof.testing._emulator.tokens import parse
from tests.process.frameworks.matrix import SERVERS, WSGI
from tests.support.fake_api import NOW, Clock
from tests.support.middleware_client import MiddlewareClient
from tests.support.modes import MODES, Mode, modes_in_turn
from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess, raw_request, run_server
from tests.support.watch_marker import WatchMarker

ALICE, MALLORY, ELSEWHERE = "127.0.0.2", "127.0.0.3", "127.0.0.4"
MAX_STALENESS = 120
"""Seconds: the default."""

SendToken = Callable[..., PodIdentity | int]


class SharedClockEnv:
    """A cluster, and apps in it in one mode, that share one clock, which tests advance."""

    def __init__(self, cluster: Cluster, time: Clock, mode: Mode, stack: ExitStack) -> None:
        self.cluster = cluster
        self.time = time
        self.mode = mode
        self._stack = stack
        self._settlers: list[Callable[[], None]] = []
        self._marker = cluster.pod("default/marker")
        load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        self._client = APIServerClient(load=load, monotonic=time, sleep=time.passes)
        stack.callback(self._client.close)

    def make_app(self, **given: object) -> SendToken:
        """Make an app with these options. Return a function that sends it a token from an address.

        The function returns the caller as the app saw it, or the status of a denial.
        """
        options = Options.read({"audience": "bob", "timeout": TIMEOUT_SECONDS} | self.mode.options | given, {})
        changes: list[Callable[[str], None]] = []
        mode = build_mode(options, self._client, changes, monotonic=self.time, now=self.time)
        authenticator = Authenticator(
            options,
            mode.verifier,
            mode.pods,
            issuer_reader=self._client,
            on_close=mode.close,
            now=self.time,
            monotonic=self.time,
        )
        changes.append(authenticator.discard_pod)
        if self.mode.pods == "watch":
            self._settlers.append(partial(WatchMarker(self._marker, changes).settle, mode.pods, self.time))
        self._stack.callback(authenticator.close)
        callers: list[PodIdentity | None] = []
        kind = "wsgi" if MODES.index(self.mode) % 2 else "asgi"
        client = MiddlewareClient(kind, authenticator, lambda: callers.append(current_caller()))

        def send(token: str, peer: str = ALICE) -> PodIdentity | int:
            status = client(headers={"Authorization": f"Bearer {token}"}, peer=peer).status
            caller = callers.pop() if status == 200 else None
            assert not callers
            return caller or status

        return send

    def settle(self) -> None:
        """Wait until the apps that watch have seen what has changed; the others see it within `cache_ttl`."""
        for settle in self._settlers:
            settle()


@pytest.fixture(params=MODES, ids=str)
def env(request: pytest.FixtureRequest, time: Clock) -> Iterator[SharedClockEnv]:
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(clock=time))
        yield SharedClockEnv(cluster, time, request.param, stack)


def pod_uid(caller: PodIdentity | int) -> str:
    assert isinstance(caller, PodIdentity)
    return caller.pod.uid


@pytest.mark.trap(30)
@pytest.mark.parametrize(("lifetime", "cache_ttl", "cached"), [(3600, 60, 60), (600, 3600, 600), (30, 60, 30)])
def test_no_identity_is_cached_beyond_the_expiry_of_its_token(
    env: SharedClockEnv, lifetime: int, cache_ttl: int, cached: int
) -> None:
    alice = env.cluster.pod("default/alice-pod", addresses=[ALICE])
    send, token = env.make_app(cache_ttl=cache_ttl, max_outage=0), alice.token("bob", lifetime=lifetime)
    assert pod_uid(send(token)) == alice.uid
    env.settle()
    env.cluster.fail("refuse")
    env.time.passes(min(cached, MAX_STALENESS if env.mode.pods == "watch" else math.inf) - 0.001)
    assert pod_uid(send(token)) == alice.uid
    env.time.passes(cached - (env.time() - NOW))
    if env.mode.calls(1, 1) == (0, 0) and cached < MAX_STALENESS:
        # The keys still verify it, for the 60 s by which clocks may differ, and the view is fresh.
        assert pod_uid(send(token)) == alice.uid
    else:
        assert send(token) == 503
    env.cluster.heal()
    env.time.passes(lifetime - cached + 61)
    assert send(token) == 401


def test_each_rotated_token_has_its_own_expiry(env: SharedClockEnv) -> None:
    alice = env.cluster.pod("default/alice-pod", addresses=[ALICE])
    send, old = env.make_app(cache_ttl=3600), alice.token("bob", lifetime=600)
    assert pod_uid(send(old)) == alice.uid
    env.time.passes(500)
    new = alice.token("bob", lifetime=600)
    assert pod_uid(send(new)) == alice.uid
    env.time.passes(161)
    assert send(old) == 401
    assert pod_uid(send(new)) == alice.uid


@pytest.mark.trap(14)
def test_a_pod_recreated_under_the_same_name_is_another_caller(env: SharedClockEnv) -> None:
    first = env.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    send, old = env.make_app(), first.token("bob")
    assert pod_uid(send(old)) == first.uid
    first.remove()
    second = env.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    assert pod_uid(send(second.token("bob"))) == second.uid != first.uid
    # The cached identity of the first pod is never returned for the second, and expires, or ends with the pod.
    env.settle()
    if env.mode.pods == "lookup":
        assert pod_uid(send(old)) == first.uid
        env.time.passes(60)
    assert send(old) == 401
    assert pod_uid(send(second.token("bob"))) == second.uid


@pytest.mark.trap(14)
def test_without_a_cache_the_token_of_a_recreated_pod_s_predecessor_is_rejected_at_once(env: SharedClockEnv) -> None:
    first = env.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    send, old = env.make_app(cache_ttl=0), first.token("bob")
    assert pod_uid(send(old)) == first.uid
    first.remove()
    env.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    env.settle()
    # The API server itself caches authenticated tokens for 10 s: the pod's UID decides.
    assert send(old) == 401


@pytest.mark.trap(21)
def test_an_address_given_to_another_pod_does_not_carry_the_old_identity(env: SharedClockEnv) -> None:
    alice = env.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    mallory = env.cluster.pod("default/mallory-pod", service_account="mallory", addresses=[MALLORY])
    send, alice_token, mallory_token = env.make_app(), alice.token("bob"), mallory.token("bob")
    assert pod_uid(send(alice_token)) == alice.uid
    alice.update(addresses=[ELSEWHERE])
    mallory.update(addresses=[ALICE])
    env.settle()
    env.time.passes(1)
    assert pod_uid(send(alice_token, ELSEWHERE)) == alice.uid
    assert pod_uid(send(mallory_token, ALICE)) == mallory.uid
    assert send(alice_token, ALICE) == 403
    assert send(mallory_token, MALLORY) == 403


@pytest.mark.trap(17)
def test_a_finished_pod_s_token_is_rejected_from_its_former_address(env: SharedClockEnv) -> None:
    alice = env.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    send, token = env.make_app(), alice.token("bob")
    assert pod_uid(send(token)) == alice.uid
    alice.update(phase="Succeeded")
    env.cluster.pod("default/mallory-pod", service_account="mallory", addresses=[ALICE])
    env.settle()
    env.time.passes(60 if env.mode.pods == "lookup" else 0)
    assert send(token) == 401


@pytest.mark.trap(16)
def test_a_terminating_pod_is_allowed_while_the_api_server_authenticates_it_and_by_keys_until_it_is_gone(
    env: SharedClockEnv,
) -> None:
    """The API server takes its token for 60 s after its grace period, and another 10 s from its cache."""
    alice = env.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    send, token = env.make_app(cache_ttl=0), alice.token("bob")
    alice.delete(grace=30)
    env.settle()
    for seconds in (0, 30, 59):
        env.time.passes(seconds)
        assert pod_uid(send(token)) == alice.uid
    env.time.passes(12)
    by_keys = env.mode.verify != "review"
    assert (send(token) == 401) == (not by_keys)
    alice.remove()
    env.settle()
    assert send(token) == 401


LIFETIMES = (2, 4, 8, 16, 32)
"""Seconds. The first is enough unless the machine is so busy that the requests arrive after the token's expiry."""

EVENTS_TOO_LATE = 10
"""Timestamps after the expiry that a slow event loop may still send, of the many that an open stream would."""

STAMP = re.compile(rb"\[([0-9.]+)\]")
TESTED_SERVERS = ("uvicorn", "gunicorn, asgi", "hypercorn, trio", "granian, asgi", "gunicorn, gthread")


class TokenExpired(Exception):
    """A request was denied because it arrived after the expiry of its token."""


def read_stream(server: ServerProcess, token: str, path: str) -> bytes:
    """Return the body of a response that the server breaks off before its end."""
    head, _, body = server.send(ALICE, raw_request(path, f"Authorization: Bearer {token}")).partition(b"\r\n\r\n")
    if b" 401 " in head.splitlines()[0]:
        raise TokenExpired
    assert b" 200 " in head.splitlines()[0]
    assert not body.endswith(b"0\r\n\r\n")  # the end of a complete response: RFC 9112 section 7.1
    return body


def read_websocket(server: ServerProcess, token: str) -> bytes:
    """Return the messages of a WebSocket until the server closes it."""
    messages: list[bytes] = []
    url, headers = f"ws://127.0.0.1:{server.port}/ws", {"Authorization": f"Bearer {token}"}
    try:
        with connect(url, additional_headers=headers, source_address=(ALICE, 0), proxy=None) as websocket:
            with pytest.raises(ConnectionClosedError) as closed:
                messages.extend(iter(lambda: websocket.recv(TIMEOUT_SECONDS, decode=False), None))
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the caller's token has expired")
    except InvalidStatus as error:
        raise TokenExpired from error
    return b"".join(messages)


@pytest.mark.trap(31)
@pytest.mark.parametrize(("name", "mode"), modes_in_turn(TESTED_SERVERS))
def test_open_streams_and_websockets_end_when_the_token_expires(
    name: str, mode: Mode, cluster: Cluster, tmp_path: Path
) -> None:
    kind = next(one for one in SERVERS if one.name == name)
    alice = cluster.pod("default/alice-pod", addresses=[ALICE])
    environ = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(cluster.kubeconfig)} | mode.environ
    readers: list[Callable[[ServerProcess, str], bytes]] = [partial(read_stream, path="/events")]
    if kind.frameworks is not WSGI:
        readers += [partial(read_stream, path="/idle"), read_websocket]
    app = "tests.security.streaming_app:" + ("wsgi_app" if kind.frameworks is WSGI else "asgi_app")

    def read_all(server: ServerProcess, lifetime: int) -> tuple[str, list[bytes]]:
        """Return a token, and everything that the readers receive with it."""
        token = alice.token("bob", lifetime=lifetime)
        with ThreadPoolExecutor() as threads:
            return token, list(threads.map(lambda read: read(server, token), readers))

    with run_server([*kind.command[:-1], app], tmp_path, **environ) as server:
        for lifetime in LIFETIMES:
            try:
                token, streams = read_all(server, lifetime)
                break
            except TokenExpired:
                continue
        else:
            pytest.fail(f"no request arrived within {LIFETIMES[-1]} s")
        for received in streams:
            stamps = [float(match[1]) for match in STAMP.finditer(received)]
            assert stamps
            assert sum(stamp > parse(token).claims["exp"] for stamp in stamps) < EVENTS_TOO_LATE
        assert server.get(ALICE, None, "/healthz").status == 200
    assert token not in server.log.read_text()
