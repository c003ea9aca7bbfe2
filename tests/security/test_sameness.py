"""Whoever is refused sees the kind of refusal, and nothing that tells which check it was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from podproof.errors import Forbidden, InvalidToken, PodAuthError, Unavailable
from podproof.testing._emulator.tokens import parse
from tests.security.attacked_app import ALICE, DOORS, MALLORY, Bob, Reply, World
from tests.support.leak_detector import Ears


@pytest.fixture(scope="module")
def tokens(world: World) -> Mapping[str, str]:
    """A token for each code of a refusal that the token alone, or its pod, is the reason for."""
    cluster = world.cluster

    def of(name: str, **changes: Any) -> str:
        pod = cluster.pod(f"default/{name}", service_account=name, addresses=[ALICE])
        token = pod.token("bob")
        pod.update(**changes)
        return token

    return {
        "malformed-token": "x.y.z",
        "wrong-audience": world.alice.token("eve"),
        "wrong-issuer": cluster.sign({**parse(world.token).claims, "iss": "https://elsewhere.example"}),
        "expired": world.alice.token("bob", lifetime=-120),
        "not-pod-bound": cluster.service_account("default/alice").token("bob"),
        "token-review-failed": cluster.forge(world.token),
        "pod-gone": of("gone"),
        "pod-finished": of("finished", phase="Failed"),
        "service-account-mismatch": of("traitor", service_account="alice"),
        "host-network": of("host", host_network=True),
        "not-allowed": of("stranger"),
    }


@pytest.fixture(scope="module")
def bob(world: World, ears: Ears) -> Bob:
    return world.bob(ears, issuers=[world.cluster.issuer], allow=["default/[!s]*"], rejection_ttl=0, timeout=0.5)


@pytest.fixture
def ill_world(world: World, tokens: Mapping[str, str]) -> Iterator[World]:
    """A world in which the pod `gone` is so."""
    world.cluster.fail(404, path="*/pods/gone")
    yield world
    world.cluster.heal()


def without_id(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    body, replaced = re.subn(rb'"request_id": "[0-9a-f]{16}"', b"", reply.body)
    assert replaced == 1
    return reply.status, sorted(reply.headers.items()), body


def codes(family: type[PodAuthError]) -> set[str]:
    return {family.code, *(code for one in family.__subclasses__() for code in codes(one))}


def told(replies: list[Reply]) -> int:
    """Return how many different answers there are."""
    return len({repr(without_id(reply)) for reply in replies})


def test_no_bad_token_is_told_from_another(ill_world: World, bob: Bob, tokens: Mapping[str, str]) -> None:
    replies = [bob.bring(door, token) for door in DOORS for token in tokens.values()]
    refused = [reply for reply in replies if reply.status == 401]
    assert {reply.code for reply in refused} == codes(InvalidToken) - {InvalidToken.code}
    assert told(refused) == 1


def test_what_is_remembered_of_a_bad_token_does_not_show(world: World, ears: Ears, tokens: Mapping[str, str]) -> None:
    bob = world.bob(ears)
    assert told([bob.bring(door, tokens["token-review-failed"]) for door in DOORS * 2]) == 1
    assert [reply.code for reply in [bob.bring(door, tokens["token-review-failed"]) for door in DOORS]] == [
        "token-review-failed"
    ] * 3


def test_no_reason_to_forbid_is_told_from_another(world: World, bob: Bob, tokens: Mapping[str, str]) -> None:
    replies = [
        bob.bring(door, token, peer)
        for door in DOORS
        for token, peer in (
            (world.token, MALLORY),
            (world.token, None),
            (tokens["host-network"], ALICE),
            (tokens["not-allowed"], ALICE),
        )
    ]
    assert {reply.code for reply in replies} == codes(Forbidden) - {Forbidden.code}
    assert told(replies) == 1


def test_no_malformed_header_is_told_from_another(world: World, bob: Bob) -> None:
    good = b"Bearer " + world.token.encode()
    malformed = [b"", b"Bearer", b"Bearer ", b"\xff", good + b"=", good + b" ", good.replace(b" ", b"  "), good * 20]
    replies = [bob.ask(door, [(b"authorization", value)]) for door in DOORS for value in malformed]
    replies += [bob.ask(door, [(b"authorization", good)] * 2) for door in DOORS]
    assert {(reply.status, reply.code) for reply in replies} == {(400, "malformed-credential")}
    assert told(replies) == 1


def test_no_trouble_of_ours_is_told_from_another(world: World, ears: Ears) -> None:
    bob = world.bob(ears, max_reviews=1, timeout=0.5)
    replies = []
    for fault in ("refuse", "hang", "html", 500, 403):
        world.cluster.fail(fault)
        replies += [bob.bring(door, world.token) for door in DOORS]
        world.cluster.heal()
    world.cluster.fail("hang")
    flights = [bob.authenticator.start(world.alice.token("bob"), ALICE) for _ in range(17)]
    replies += [bob.bring(door, world.token) for door in DOORS]
    world.cluster.heal()
    assert all(flight.result(10) for flight in flights)
    assert {(reply.status, reply.code) for reply in replies} == {(503, code) for code in codes(Unavailable)}
    assert told(replies) == 1
