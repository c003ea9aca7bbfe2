"""The API server misbehaves, in every way: that costs nobody who is known anything, and nobody new more than a wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from podproof._apiserver.client import ATTEMPTS, BACKOFF
from podproof._apiserver.connection import load_configuration
from podproof.errors import Unavailable
from podproof.identity import PodIdentity
from podproof.testing._emulator.certificates import authority
from tests.security.attacked_app import Bob, Clock, World
from tests.support.leak_detector import Ears

DOORS = ("wsgi", "asgi")
HANGING = ("silent", "hang", "drip-headers", "drip-body")
SHORT, AMPLE = 1.0, 20.0
"""Timeouts in seconds, for what takes them whole and for the rest: this machine may be busy with other things."""
PATIENCE = 2.0
"""Seconds beyond the timeout after which somebody hangs."""
TTL = 30.0

WHOLE = ("refuse", "silent", "foreign-certificate", "wrong-name")
STATUSES = (400, 401, 403, 409, 429, 500, 501, 502, 503, 504)
BROKEN = ("hang", "close", "reset", "cut", "drip-headers", "drip-body", "html", "content-type", "truncated", "huge")
FAULTS = [
    *(pytest.param(kind, {}, id=str(kind)) for kind in (*WHOLE, *BROKEN, *STATUSES)),
    *(pytest.param(kind, {"path": "*/pods/*"}, id=f"{kind} for pods") for kind in (*BROKEN, *STATUSES)),
    *(pytest.param(429, {"retry_after": after}, id=f"429 after {after}") for after in (0, 60)),
    pytest.param(404, {"path": "*/tokenreviews"}, id="404 for reviews"),
]
PASSING = (*BROKEN[1:4], "html", "content-type", "truncated", "huge", 429, 500, 502, 503, 504)


@pytest.fixture(autouse=True)
def the_api_server_is_well_again(world: World) -> Iterator[None]:
    yield
    world.cluster.heal()


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[[object], Bob]


@pytest.fixture
def bob_for(world: World, ears: Ears, clock: Clock) -> Make:
    """Make a Bob for one kind of fault."""

    def make(kind: object) -> Bob:
        return world.bob(ears, clock, timeout=SHORT if kind in HANGING else AMPLE, cache_ttl=TTL)

    return make


@pytest.fixture
def bob(bob_for: Make) -> Bob:
    return bob_for(None)


def check_told_to_come_back(bob: Bob, door: str, token: str) -> str:
    """Somebody new asks, and is told in time that it is no fault of its own; return the reason in the books."""
    begun = time.monotonic()
    reply = bob.bring(door, token)
    assert time.monotonic() - begun < bob.authenticator.options.timeout + PATIENCE
    assert (reply.status, reply.code) == (503, "unavailable")
    assert int(reply.headers["retry-after"]) > 0
    return reply.reason


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("kind", "how"), FAULTS)
def test_who_is_known_is_served_who_is_new_comes_back_and_nothing_is_remembered(
    world: World, bob_for: Make, door: str, kind: Any, how: dict[str, Any]
) -> None:
    bob = bob_for(kind)
    known, new = world.alice.token("bob"), world.alice.token("bob")
    assert bob.bring(door, known).accepted
    world.cluster.fail(kind, **how)
    assert bob.bring(door, known).accepted
    check_told_to_come_back(bob, door, new)
    assert bob.bring(door, known).accepted
    world.cluster.heal()
    assert bob.bring(door, new).accepted
    assert bob.bring(door, known).accepted


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", ["refuse", "hang", "html", 401, 500])
def test_when_its_time_is_up_in_an_outage_who_was_known_is_told_to_come_back(
    world: World, bob_for: Make, clock: Clock, door: str, kind: Any
) -> None:
    bob = bob_for(kind)
    token = world.alice.token("bob")
    assert bob.bring(door, token).accepted
    world.cluster.fail(kind)
    clock.passes(TTL - 1)
    assert bob.bring(door, token).accepted
    clock.passes(1)
    check_told_to_come_back(bob, door, token)
    world.cluster.heal()
    assert bob.bring(door, token).accepted


@pytest.mark.parametrize("kind", HANGING)
def test_many_new_callers_all_get_their_answer_in_time(world: World, bob_for: Make, kind: Any) -> None:
    bob = bob_for(kind)
    tokens = [world.alice.token("bob") for _ in range(40)]
    world.cluster.fail(kind)
    with ThreadPoolExecutor(len(tokens)) as callers:
        begun = time.monotonic()
        outcomes = list(callers.map(bob.identify, tokens))
        assert time.monotonic() - begun < SHORT + PATIENCE
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    world.cluster.heal()
    assert all(isinstance(bob.identify(token), PodIdentity) for token in tokens)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", PASSING)
def test_a_failure_that_passes_is_not_seen(world: World, bob: Bob, clock: Clock, door: str, kind: Any) -> None:
    world.cluster.fail(kind, times=ATTEMPTS - 1)
    before = world.cluster.count("tokenreviews")
    assert bob.bring(door, world.alice.token("bob")).accepted
    assert world.cluster.count("tokenreviews") == before + ATTEMPTS
    assert len(clock.slept) == ATTEMPTS - 1
    assert all(0 <= pause <= BACKOFF * 2**number for number, pause in enumerate(clock.slept))


def test_no_two_wait_alike_before_they_try_again(world: World, bob: Bob, clock: Clock) -> None:
    world.cluster.fail(503)
    for _ in range(4):
        bob.bring("wsgi", world.alice.token("bob"))
    assert len(set(clock.slept)) == len(clock.slept) == 4 * (ATTEMPTS - 1)


@pytest.mark.parametrize("after", [0, 60])
def test_the_server_says_how_long_to_wait_and_nobody_waits_beyond_the_deadline(
    world: World, bob: Bob, clock: Clock, after: int
) -> None:
    world.cluster.fail(429, times=1, retry_after=after)
    reply = bob.bring("wsgi", world.alice.token("bob"))
    assert (reply.status, clock.slept) == ((200, [0]) if after == 0 else (503, []))


def test_a_certificate_renewed_by_the_same_authority_is_not_seen(world: World, bob: Bob) -> None:
    assert bob.bring("wsgi", world.alice.token("bob")).accepted
    world.cluster.fail("new-certificate")
    assert bob.bring("wsgi", world.alice.token("bob")).accepted


@pytest.mark.parametrize("kind", ["foreign-certificate", "wrong-name"])
def test_a_wrong_certificate_is_named(world: World, bob: Bob, kind: Any) -> None:
    world.cluster.fail(kind)
    reason = check_told_to_come_back(bob, "wsgi", world.alice.token("bob"))
    assert "SSLCertVerificationError" in reason


def test_a_new_authority_is_trusted_as_soon_as_it_is_mounted(world: World, ears: Ears, tmp_path: Path) -> None:
    mounted = world.cluster.mount(tmp_path, "default/bob")
    host, _, port = world.cluster.url.removeprefix("https://").partition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    bob = world.bob(ears, load=partial(load_configuration, environ=environ, mounted=mounted))
    (mounted / "ca.crt").write_text(authority("of before").pem)
    check_told_to_come_back(bob, "wsgi", world.token)
    (mounted / "ca.crt").write_text(world.cluster.ca_pem)
    assert bob.bring("wsgi", world.token).accepted


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("path", "permission"), [("*/tokenreviews", "create tokenreviews.authentication.k8s.io"), ("*/pods/*", "get pods")]
)
def test_a_missing_permission_is_looked_for_anew_once_and_named(
    world: World, bob: Bob, door: str, path: str, permission: str
) -> None:
    world.cluster.fail(403, path=path)
    asked = len(world.cluster.requests)
    reason = check_told_to_come_back(bob, door, world.alice.token("bob"))
    assert f"forbids us to {permission} (403)" in reason
    assert len(world.cluster.requests) - asked == 2 + ("pods" in path)


@pytest.mark.parametrize("door", DOORS)
def test_a_credential_that_is_refused_is_read_anew_once(world: World, ears: Ears, tmp_path: Path, door: str) -> None:
    kubeconfig = json.loads(world.cluster.kubeconfig_for("default/bob").read_text())
    good = kubeconfig["users"][0]["user"]["token"]
    path = tmp_path / "kubeconfig"
    loads: list[Path] = []

    def write(token: str) -> None:
        kubeconfig["users"][0]["user"]["token"] = token
        path.write_text(json.dumps(kubeconfig))

    def load(configuration: Configuration) -> None:
        loads.append(path)
        load_configuration(configuration, environ={"KUBECONFIG": str(path)})

    write(world.cluster.forge(good))
    bob = world.bob(ears, load=load)
    for secret in (good, world.cluster.forge(good)):
        ears.keep(secret)
    reason = check_told_to_come_back(bob, door, world.token)
    assert "does not accept our own credential (401)" in reason
    assert len(loads) == 2
    write(good)
    assert bob.bring(door, world.token).accepted
    assert len(loads) == 3


def test_a_role_that_is_bound_too_late_is_enough_for_the_next_request(world: World, ears: Ears, tmp_path: Path) -> None:
    kubeconfig = world.cluster.kubeconfig_for("default/late-bob")
    bob = world.bob(ears, load=partial(load_configuration, environ={"KUBECONFIG": str(kubeconfig)}))
    reason = check_told_to_come_back(bob, "wsgi", world.token)
    assert "create tokenreviews.authentication.k8s.io" in reason
    world.cluster.grant("default/late-bob", verbs=["create"], resources=["tokenreviews"])
    reason = check_told_to_come_back(bob, "wsgi", world.token)
    assert "get pods" in reason
    world.cluster.grant("default/late-bob", verbs=["get"], resources=["pods"])
    assert bob.bring("wsgi", world.token).accepted
