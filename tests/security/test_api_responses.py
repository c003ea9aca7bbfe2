"""Responses of the API server with every place changed: none that is not as specified allows a request."""

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
from tests.security.attacked_app import ALICE, ENTRY_POINTS, AttackedApp, AttackEnv
from tests.security.json_mutations import Path, every_change, mangled, places, render
from tests.support.leak_detector import LeakDetector

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
"""The places in a Pod that decide; property tests change the others at random."""


@pytest.fixture(scope="module")
def app(attack_env: AttackEnv, leak_detector: LeakDetector) -> Iterator[AttackedApp]:
    yield attack_env.make_app(leak_detector, cache_ttl=0, rejection_ttl=0)
    attack_env.cluster.heal()


@pytest.fixture(scope="module")
def token_review(attack_env: AttackEnv, app: AttackedApp) -> Mapping[str, Any]:
    return app.client.review_token(attack_env.token, ["bob"], time.monotonic() + 5)


@pytest.fixture(scope="module")
def pod(attack_env: AttackEnv) -> Mapping[str, Any]:
    """Return Alice's pod with `hostNetwork: false` and a second address."""
    live: dict[str, Any] = json.loads(json.dumps(attack_env.alice.json()))
    live["spec"]["hostNetwork"] = False
    live["status"]["podIPs"].append({"ip": "fd00::2"})
    return {"kind": "Pod", "apiVersion": "v1"} | live


@pytest.fixture(autouse=True)
def heal_api_server(attack_env: AttackEnv) -> Iterator[None]:
    yield
    attack_env.cluster.heal()


Oracle = Callable[[bytes], bool]


def review_oracle(attack_env: AttackEnv) -> Oracle:
    return lambda data: model.parse_reviewed_pod(model.parse_json(data), "bob") in attack_env.pod_addresses


def pod_oracle(attack_env: AttackEnv) -> Oracle:
    [alice] = [bound for bound, address in attack_env.pod_addresses.items() if address == ALICE]
    return lambda data: model.is_pod_at(model.parse_json(data), alice, ALICE)


def _replace(data: bytes, _: object) -> bytes:
    return data


def try_responses(
    attack_env: AttackEnv, app: AttackedApp, resource: str, responses: Iterable[Any], is_allowed: Oracle
) -> tuple[int, int]:
    """Send Alice's token while the API server gives each of these responses; return how many allowed and denied it."""
    counts = [0, 0]
    for entry_point, response in zip(cycle(ENTRY_POINTS), responses):
        data = render(response).encode()
        attack_env.cluster.mutate(resource, partial(_replace, data))
        result = app.send_token(entry_point, attack_env.token)
        assert result.allowed == is_allowed(data), data[:1000]
        assert result.status in (200, 401, 403, 503)
        counts[not result.allowed] += 1
    return counts[0], counts[1]


def test_a_changed_token_review_allows_only_the_pod_that_it_still_authenticates(
    attack_env: AttackEnv,
    app: AttackedApp,
    token_review: Mapping[str, Any],
    record_property: Callable[[str, object], None],
) -> None:
    allowed, denied = try_responses(
        attack_env, app, "tokenreviews", every_change(token_review), review_oracle(attack_env)
    )
    record_property("cases", allowed + denied)
    assert min(allowed, denied) > 100


def test_a_changed_pod_allows_only_a_caller_that_it_still_matches(
    attack_env: AttackEnv, app: AttackedApp, pod: Mapping[str, Any], record_property: Callable[[str, object], None]
) -> None:
    allowed, denied = try_responses(attack_env, app, "pods", every_change(pod, DECIDING), pod_oracle(attack_env))
    record_property("cases", allowed + denied)
    assert min(allowed, denied) > 50


@given(data=st.data())
def test_a_token_review_changed_in_several_places_decides_as_the_model_does(
    attack_env: AttackEnv, app: AttackedApp, token_review: Mapping[str, Any], data: st.DataObject
) -> None:
    try_responses(attack_env, app, "tokenreviews", [data.draw(mangled(token_review))], review_oracle(attack_env))


@given(data=st.data())
def test_a_pod_changed_in_several_places_decides_as_the_model_does(
    attack_env: AttackEnv, app: AttackedApp, pod: Mapping[str, Any], data: st.DataObject
) -> None:
    try_responses(attack_env, app, "pods", [data.draw(mangled(pod))], pod_oracle(attack_env))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(resource=st.sampled_from(["tokenreviews", "pods"]), body=st.binary() | JSON.map(json.dumps).map(str.encode))
def test_a_response_of_another_kind_is_an_outage(
    attack_env: AttackEnv, app: AttackedApp, resource: str, body: bytes
) -> None:
    attack_env.cluster.mutate(resource, lambda _: body)
    outcome = app.authenticate(attack_env.token)
    assert not isinstance(outcome, PodIdentity)
    assert outcome.status == 503


def test_unchanged_responses_allow_alice(
    attack_env: AttackEnv, app: AttackedApp, token_review: Mapping[str, Any], pod: Mapping[str, Any]
) -> None:
    attack_env.cluster.mutate("pods", lambda _: render(pod).encode())
    assert try_responses(attack_env, app, "tokenreviews", [token_review] * 3, review_oracle(attack_env)) == (3, 0)
    assert set(DECIDING) <= set(places(pod))
