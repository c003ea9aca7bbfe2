"""The API server's answers, changed in every place: nobody is let in by one that is not what it must be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof.identity import PodIdentity
from tests.security import reference_model as model
from tests.security.attacked_app import ALICE, DOORS, Bob, World
from tests.security.mutations import Path, every_change, mangled, places, render
from tests.support.leak_detector import Ears

DECIDING: tuple[Path, ...] = (
    (),
    ("kind",),
    ("metadata",),
    *(("metadata", name) for name in ("namespace", "name", "uid")),
    ("spec",),
    *(("spec", name) for name in ("serviceAccountName", "hostNetwork", "nodeName")),
    ("status",),
    *(("status", name) for name in ("phase", "podIP", "podIPs")),
    ("status", "podIPs", 0),
    ("status", "podIPs", 0, "ip"),
)
"""The places in a Pod that somebody looks at; the others are left to chance."""


@pytest.fixture(scope="module")
def bob(world: World, ears: Ears) -> Iterator[Bob]:
    yield world.bob(ears, cache_ttl=0, rejection_ttl=0)
    world.cluster.heal()


@pytest.fixture(scope="module")
def review(world: World, bob: Bob) -> Mapping[str, Any]:
    return bob.client.review_token(world.token, ["bob"], time.monotonic() + 5)


@pytest.fixture(scope="module")
def pod(world: World) -> Mapping[str, Any]:
    """Alice's pod, with a field that it would have if it were on the host network, and two addresses."""
    live: dict[str, Any] = json.loads(json.dumps(world.alice.json()))
    live["spec"]["hostNetwork"] = False
    live["status"]["podIPs"].append({"ip": "fd00::2"})
    return {"kind": "Pod", "apiVersion": "v1"} | live


@pytest.fixture(autouse=True)
def the_api_server_is_well_again(world: World) -> Iterator[None]:
    yield
    world.cluster.heal()


Judge = Callable[[bytes], bool]


def judged_review(world: World) -> Judge:
    return lambda data: model.voucher(model.document(data), "bob") in world.homes


def judged_pod(world: World) -> Judge:
    [alice] = [bound for bound, address in world.homes.items() if address == ALICE]
    return lambda data: model.is_home(model.document(data), alice, ALICE)


def _instead(data: bytes, _: object) -> bytes:
    return data


def check(world: World, bob: Bob, resource: str, answers: Iterable[Any], is_good: Judge) -> tuple[int, int]:
    """Have Alice ask while the API server gives each of these answers; return how many let her in, and did not."""
    counts = [0, 0]
    for door, answer in zip(cycle(DOORS), answers):
        data = render(answer).encode()
        world.cluster.mutate(resource, partial(_instead, data))
        reply = bob.bring(door, world.token)
        assert reply.accepted == is_good(data), data[:1000]
        assert reply.status in (200, 401, 403, 503)
        counts[not reply.accepted] += 1
    return counts[0], counts[1]


def test_every_change_of_a_review_lets_in_only_whom_it_still_vouches_for(
    world: World, bob: Bob, review: Mapping[str, Any], record_property: Callable[[str, object], None]
) -> None:
    accepted, refused = check(world, bob, "tokenreviews", every_change(review), judged_review(world))
    record_property("cases", accepted + refused)
    assert min(accepted, refused) > 100


def test_every_change_of_a_pod_lets_in_only_who_still_lives_there(
    world: World, bob: Bob, pod: Mapping[str, Any], record_property: Callable[[str, object], None]
) -> None:
    accepted, refused = check(world, bob, "pods", every_change(pod, DECIDING), judged_pod(world))
    record_property("cases", accepted + refused)
    assert min(accepted, refused) > 50


@given(data=st.data())
def test_a_review_changed_in_several_places_is_judged_as_the_model_does(
    world: World, bob: Bob, review: Mapping[str, Any], data: st.DataObject
) -> None:
    check(world, bob, "tokenreviews", [data.draw(mangled(review))], judged_review(world))


@given(data=st.data())
def test_a_pod_changed_in_several_places_is_judged_as_the_model_does(
    world: World, bob: Bob, pod: Mapping[str, Any], data: st.DataObject
) -> None:
    check(world, bob, "pods", [data.draw(mangled(pod))], judged_pod(world))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(resource=st.sampled_from(["tokenreviews", "pods"]), body=st.binary() | JSON.map(json.dumps).map(str.encode))
def test_no_answer_of_another_kind_lets_anybody_in(world: World, bob: Bob, resource: str, body: bytes) -> None:
    world.cluster.mutate(resource, lambda _: body)
    outcome = bob.identify(world.token)
    assert not isinstance(outcome, PodIdentity)
    assert outcome.status == 503


def test_what_is_not_changed_lets_alice_in(
    world: World, bob: Bob, review: Mapping[str, Any], pod: Mapping[str, Any]
) -> None:
    world.cluster.mutate("pods", lambda _: render(pod).encode())
    assert check(world, bob, "tokenreviews", [review, review, review], judged_review(world)) == (3, 0)
    assert set(DECIDING) <= set(places(pod))
