"""Responses of the API server with every place changed: none that is not as specified allows a request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.jws import JWS
from podproof._authentication.pod_view import ALL_NAMESPACES, PodView
from podproof._authentication.pod_watch import PodReflector
from podproof._authentication.token_review import ReviewedToken, TokenReviewVerifier
from podproof.errors import PodAuthError, PodGone
from podproof.identity import PodIdentity, ServiceAccount
from podproof.options import Options
from tests.security import reference_model as model
from tests.security.attacked_app import ALICE, ENTRY_POINTS, AttackedApp, AttackEnv
from tests.security.json_mutations import Path, every_change, mangled, places, render
from tests.support.leak_detector import LeakDetector
from tests.support.modes import DEFAULT, LOOKING_UP, MODES, REVIEWING, Mode
from tests.support.pod_events import VERSION_20, ScriptedStream, page
from tests.support.server_process import TIMEOUT_SECONDS

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


Apps = Mapping[Mode, AttackedApp]


@pytest.fixture(scope="module")
def apps(attack_env: AttackEnv, leak_detector: LeakDetector) -> Iterator[Apps]:
    yield {mode: attack_env.make_app(leak_detector, mode=mode, cache_ttl=0, max_outage=0) for mode in MODES}
    attack_env.cluster.heal()


@pytest.fixture(scope="module")
def app(apps: Apps) -> AttackedApp:
    return apps[DEFAULT]


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
    attack_env: AttackEnv, apps: Apps, resource: str, responses: Iterable[Any], is_allowed: Oracle
) -> tuple[int, int]:
    """Send Alice's token while the API server gives each of these responses; return how many allowed and denied it.

    The modes that ask for the resource get the responses in turn. By keys, a review is asked about a token of a key
    that is not known.
    """
    asking = [mode for mode in apps if resource == "tokenreviews" or mode.pods == "lookup"]
    unknown = attack_env.cluster.forge(attack_env.token)
    counts = [0, 0]
    for entry_point, mode, response in zip(cycle(ENTRY_POINTS), cycle(asking), responses):
        data = render(response).encode()
        attack_env.cluster.mutate(resource, partial(_replace, data))
        by_unknown_key = resource == "tokenreviews" and mode.verify != "review"
        result = apps[mode].send_token(entry_point, unknown if by_unknown_key else attack_env.token)
        assert result.allowed == is_allowed(data), (mode, data[:1000])
        assert result.status in (200, 401, 403, 503)
        counts[not result.allowed] += 1
    return counts[0], counts[1]


def test_a_changed_token_review_allows_only_the_pod_that_it_still_authenticates(
    attack_env: AttackEnv,
    apps: Apps,
    token_review: Mapping[str, Any],
    record_property: Callable[[str, object], None],
) -> None:
    allowed, denied = try_responses(
        attack_env, apps, "tokenreviews", every_change(token_review), review_oracle(attack_env)
    )
    record_property("cases", allowed + denied)
    assert min(allowed, denied) > 100


def test_a_changed_pod_allows_only_a_caller_that_it_still_matches(
    attack_env: AttackEnv, apps: Apps, pod: Mapping[str, Any], record_property: Callable[[str, object], None]
) -> None:
    allowed, denied = try_responses(attack_env, apps, "pods", every_change(pod, DECIDING), pod_oracle(attack_env))
    record_property("cases", allowed + denied)
    assert min(allowed, denied) > 50


@pytest.mark.parametrize("form", ["list", "event"])
def test_a_changed_pod_in_a_watch_allows_only_a_caller_that_it_still_matches(
    attack_env: AttackEnv,
    app: AttackedApp,
    pod: Mapping[str, Any],
    form: str,
    record_property: Callable[[str, object], None],
) -> None:
    """A list or an event that cannot be read leaves nothing in the view, from which the caller would be allowed."""
    reviewed = TokenReviewVerifier(app.client, ["bob"]).verify(attack_env.token, time.monotonic() + TIMEOUT_SECONDS)
    options = Options.read({"audience": "bob", "cache_ttl": 0}, {})
    is_allowed = pod_oracle(attack_env)
    counts = [0, 0]
    for changed in every_change(pod, [path for path in DECIDING if path != ("kind",)]):
        data = render(changed).encode()
        view = watched_view(form, data)
        authenticator = Authenticator(options, VerifiedAlready(reviewed), view)
        try:
            allowed = isinstance(authenticator.authenticate(attack_env.token, ALICE), PodIdentity)
        except PodAuthError:
            allowed = False
        assert allowed == is_allowed(data), data[:1000]
        counts[not allowed] += 1
    record_property("cases", sum(counts))
    assert min(counts) > 50


def watched_view(form: str, data: bytes) -> PodView:
    """Return the view of a watch whose list has this JSON for a pod, or has none and an event with it follows."""
    lines = [b'{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[' + data + b"]}"]
    if form == "event":
        lines = [page(version=1)]
    stream = ScriptedStream(lines, [b'{"type":"ADDED","object":' + data + b"}"], version=[VERSION_20])
    if form == "list":
        stream = ScriptedStream(lines, version=[VERSION_20])
    view = PodView(fallback=NoPods())
    view.fail(ALL_NAMESPACES, "the list cannot be read")
    reflector = PodReflector(stream, view, ALL_NAMESPACES, selectors={}, wait=lambda *_: reflector.close())
    stream.at_end = reflector.close
    reflector.run()
    return view


@dataclass(frozen=True)
class VerifiedAlready:
    """Knows whose the token is."""

    reviewed: ReviewedToken

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        return self.reviewed

    def verify_at_once(self, token: JWS) -> ReviewedToken:
        return self.reviewed


class NoPods:
    """Is an API server that knows no pod."""

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> NoReturn:
        raise PodGone("there is no such pod")

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> None:
        return None


@given(data=st.data())
def test_a_token_review_changed_in_several_places_decides_as_the_model_does(
    attack_env: AttackEnv, apps: Apps, token_review: Mapping[str, Any], data: st.DataObject
) -> None:
    mode = data.draw(st.sampled_from(MODES))
    response = data.draw(mangled(token_review))
    try_responses(attack_env, {mode: apps[mode]}, "tokenreviews", [response], review_oracle(attack_env))


@given(data=st.data())
def test_a_pod_changed_in_several_places_decides_as_the_model_does(
    attack_env: AttackEnv, apps: Apps, pod: Mapping[str, Any], data: st.DataObject
) -> None:
    mode = data.draw(st.sampled_from(LOOKING_UP))
    try_responses(attack_env, {mode: apps[mode]}, "pods", [data.draw(mangled(pod))], pod_oracle(attack_env))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(resource=st.sampled_from(["tokenreviews", "pods"]), body=st.binary() | JSON.map(json.dumps).map(str.encode))
def test_a_response_of_another_kind_is_an_outage(attack_env: AttackEnv, apps: Apps, resource: str, body: bytes) -> None:
    attack_env.cluster.mutate(resource, lambda _: body)
    for mode in LOOKING_UP if resource == "pods" else REVIEWING:
        outcome = apps[mode].authenticate(attack_env.token)
        assert not isinstance(outcome, PodIdentity)
        assert outcome.status == 503


def test_unchanged_responses_allow_alice(
    attack_env: AttackEnv, apps: Apps, token_review: Mapping[str, Any], pod: Mapping[str, Any]
) -> None:
    attack_env.cluster.mutate("pods", lambda _: render(pod).encode())
    assert try_responses(attack_env, apps, "tokenreviews", [token_review] * 15, review_oracle(attack_env)) == (15, 0)
    assert set(DECIDING) <= set(places(pod))
