"""Both questions in both ways, on the emulated API server: the same verdicts in each mode."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from podproof import PodIdentity
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._request.setup import build_authenticator
from podproof._token.jwt import read_claims
from podproof.errors import (
    HostNetwork,
    InvalidToken,
    NotPodBound,
    PodAuthError,
    PodFinished,
    PodGone,
    ServiceAccountMismatch,
    SignatureInvalid,
    Unavailable,
    WrongAddress,
)
from podproof.options import Options
from podproof.testing import Cluster

ALICE, ELSEWHERE = "10.0.0.7", "10.0.0.9"
MODES = [(verify, pods) for verify in ("review", "keys", "auto") for pods in ("lookup", "watch")]
WATCHING = [("review", "watch"), ("keys", "watch")]

Make = Callable[..., Authenticator]


@pytest.fixture
def make(cluster: Cluster) -> Iterator[Make]:
    clients: list[APIServerClient] = []
    made: list[Authenticator] = []

    def make_one(verify: Any, pods: Any, **given: Any) -> Authenticator:
        load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        clients.append(APIServerClient(load=load))
        made.append(build_authenticator(Options(audience=("bob",), verify=verify, pods=pods, **given), clients[-1]))
        return made[-1]

    yield make_one
    for authenticator in made:
        authenticator.close()
    for client in clients:
        client.close()


@pytest.mark.parametrize(("verify", "pods"), MODES)
def test_the_verdicts_are_the_same_in_each_mode(cluster: Cluster, make: Make, verify: str, pods: str) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    unbound = cluster.service_account("default/alice").token("bob")
    authenticator = make(verify, pods)
    token = alice.token("bob")
    identity = authenticator.authenticate(token, ALICE)
    assert (str(identity.service_account), str(identity.pod)) == ("default/alice", "default/alice-pod")
    assert authenticator.authenticate(token, ALICE) is identity
    for wrong, error in (
        (cluster.forge(token), InvalidToken),
        (alice.token("carol"), InvalidToken),
        (alice.token("bob", lifetime=-3600), InvalidToken),
        (unbound, NotPodBound),
    ):
        with pytest.raises(error):
            authenticator.authenticate(wrong, ALICE)
    with pytest.raises(WrongAddress):
        authenticator.authenticate(token, ELSEWHERE)


@pytest.mark.parametrize(("verify", "pods"), MODES)
def test_an_identity_says_the_same_in_each_mode(cluster: Cluster, make: Make, verify: str, pods: str) -> None:
    labels = {"team": "payments"}
    alice = cluster.pod(
        "default/alice-pod", service_account="alice", addresses=[ALICE], labels=labels, owner="StatefulSet/alice"
    )
    token = alice.token("bob")
    reference: PodIdentity = make("review", "lookup").authenticate(token, ALICE)
    assert (reference.pod.labels, str(reference.pod.owner)) == (labels, "StatefulSet.apps/alice")
    assert make(verify, pods).authenticate(token, ALICE) == reference


def test_with_keys_and_a_watch_no_call_is_made_for_a_token(cluster: Cluster, make: Make) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    authenticator = make("keys", "watch")
    authenticator.authenticate(alice.token("bob"), ALICE)
    before = cluster.count("pods")
    for lifetime in range(600, 620):
        authenticator.authenticate(alice.token("bob", lifetime=lifetime), ALICE)
    token = alice.token("bob")
    with pytest.raises(SignatureInvalid):
        authenticator.authenticate(".".join([*token.split(".")[:2], cluster.forge(token).split(".")[2]]), ALICE)
    assert (cluster.count("tokenreviews"), cluster.count("pods")) == (0, before)


def test_keys_may_be_read_from_a_file_for_the_issuers_that_are_named(
    cluster: Cluster, make: Make, tmp_path: Path
) -> None:
    token = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE]).token("bob")
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(client.signing_keys(monotonic() + 5)))
    client.close()
    authenticator = make("keys", "lookup", issuers=[read_claims(token)["iss"]], jwks=str(file))
    assert authenticator.authenticate(token, ALICE).display_name == "default/alice"
    assert (cluster.count("tokenreviews"), cluster.count("pods")) == (0, 1)


def test_keys_may_be_at_a_url() -> None:
    given = {"verify": "keys", "issuers": ["https://issuer"], "jwks": "https://issuer.example/jwks"}
    build_authenticator(Options(audience=("bob",), **given)).close()  # type: ignore[arg-type]  # of several types


@pytest.mark.parametrize(("verify", "pods"), WATCHING)
def test_a_deleted_pod_is_denied_at_once(cluster: Cluster, make: Make, verify: str, pods: str) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    authenticator = make(verify, pods, cache_ttl=3600)
    token = alice.token("bob")
    authenticator.authenticate(token, ALICE)
    alice.remove()
    wait_until(lambda: is_denied(authenticator, token, ALICE))
    with pytest.raises(InvalidToken):
        authenticator.authenticate(token, ALICE)


@pytest.mark.parametrize(("verify", "pods"), WATCHING)
def test_a_changed_label_is_seen_at_once(cluster: Cluster, make: Make, verify: str, pods: str) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE], labels={"team": "payments"})
    authenticator = make(verify, pods, cache_ttl=3600)
    token = alice.token("bob")
    assert authenticator.authenticate(token, ALICE).pod.labels == {"team": "payments"}
    alice.update(labels={"team": "other"})
    wait_until(lambda: authenticator.authenticate(token, ALICE).pod.labels == {"team": "other"})


@pytest.mark.parametrize(("verify", "pods"), [mode for mode in MODES if mode[1] == "lookup"])
def test_a_changed_label_is_seen_when_the_cached_caller_expires(
    cluster: Cluster, make: Make, verify: str, pods: str
) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE], labels={"team": "payments"})
    token = alice.token("bob")
    caching, forgetting = make(verify, pods, cache_ttl=3600), make(verify, pods, cache_ttl=0)
    for authenticator in (caching, forgetting):
        assert authenticator.authenticate(token, ALICE).pod.labels == {"team": "payments"}
    alice.update(labels={})
    assert caching.authenticate(token, ALICE).pod.labels == {"team": "payments"}
    assert forgetting.authenticate(token, ALICE).pod.labels == {}


def test_a_pod_with_another_address_is_denied_at_its_old_one(cluster: Cluster, make: Make) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    authenticator = make("keys", "watch", cache_ttl=3600)
    token = alice.token("bob")
    authenticator.authenticate(token, ALICE)
    alice.update(addresses=[ELSEWHERE])
    wait_until(lambda: is_denied(authenticator, token, ALICE))
    assert authenticator.authenticate(token, ELSEWHERE).pod.addresses == (ELSEWHERE,)


@pytest.mark.parametrize(
    ("selector", "leave", "denial"),
    [
        ({"watch_fields": "status.phase=Running"}, lambda pod: pod.update(phase="Succeeded"), PodFinished),
        ({"watch_fields": "status.phase=Running"}, lambda pod: pod.update(phase="Pending"), None),
        ({"watch_fields": "status.phase=Running"}, lambda pod: pod.remove(), PodGone),
        ({"watch_fields": "spec.hostNetwork=false"}, lambda pod: pod.update(host_network=True), HostNetwork),
        ({"watch_fields": f"status.podIP={ALICE}"}, lambda pod: pod.update(addresses=[ELSEWHERE]), WrongAddress),
        (
            {"watch_fields": "spec.serviceAccountName=alice"},
            lambda pod: pod.update(service_account="mallory"),
            ServiceAccountMismatch,
        ),
        ({"watch_labels": "app in (alice)"}, lambda pod: pod.update(labels={"app": "other"}), None),
        ({"watch_labels": "app=alice"}, lambda pod: pod.remove(), PodGone),
    ],
)
def test_a_pod_that_leaves_the_selection_is_looked_up_with_its_next_request(
    cluster: Cluster, make: Make, selector: Any, leave: Callable[[Any], None], denial: type[PodAuthError] | None
) -> None:
    cluster.service_account("default/mallory")
    labels = {"app": "alice"}
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE], labels=labels)
    authenticator = make("keys", "watch", cache_ttl=3600, **selector)
    token = alice.token("bob")
    authenticator.authenticate(token, ALICE)
    assert lookups(cluster) == 0
    leave(alice)
    outcomes: list[type[PodAuthError] | None] = []

    def is_looked_up() -> bool:
        outcomes.append(outcome(authenticator, token, ALICE))
        return lookups(cluster) > 0

    wait_until(is_looked_up)
    assert (outcomes[-1], outcome(authenticator, token, ALICE)) == (denial, denial)
    assert not any(outcomes[:-1])


@pytest.mark.parametrize("verify", ["review", "keys"])
def test_a_pod_outside_of_the_selection_is_looked_up_each_cache_ttl_and_not_known_in_an_outage(
    cluster: Cluster, make: Make, verify: str
) -> None:
    other = cluster.pod("default/other", service_account="alice", addresses=[ALICE], labels={"app": "other"})
    authenticator = make(verify, "watch", watch_labels="app=alice", cache_ttl=0, timeout=1)
    token = other.token("bob")
    for expected in (1, 2):
        assert authenticator.authenticate(token, ALICE).display_name == "default/alice"
        assert lookups(cluster) == expected
    cluster.fail("refuse")
    with pytest.raises(Unavailable):
        authenticator.authenticate(cluster.pod("default/new", service_account="alice").token("bob"), "10.0.0.2")


def lookups(cluster: Cluster) -> int:
    return sum(one.verb == "get" and one.resource == "pods" and bool(one.name) for one in cluster.requests)


def outcome(authenticator: Authenticator, token: str, peer: str) -> type[PodAuthError] | None:
    """Return the error of a caller that is denied, None for one that is not."""
    try:
        authenticator.authenticate(token, peer)
    except PodAuthError as denial:
        return type(denial)
    return None


def test_without_the_api_server_known_pods_stay_and_others_do_not(cluster: Cluster, make: Make) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
    authenticator = make("keys", "watch", cache_ttl=0, timeout=1)
    authenticator.authenticate(alice.token("bob"), ALICE)
    tokens = [alice.token("bob", lifetime=lifetime) for lifetime in (700, 800)]
    cluster.fail("refuse")
    unknown = cluster.pod("default/new-pod", service_account="new", addresses=[ELSEWHERE]).token("bob")
    for token in tokens:
        assert authenticator.authenticate(token, ALICE).display_name == "default/alice"
    with pytest.raises((Unavailable, PodGone)):
        authenticator.authenticate(unknown, ELSEWHERE)


def is_denied(authenticator: Authenticator, token: str, peer: str) -> bool:
    try:
        authenticator.authenticate(token, peer)
    except (InvalidToken, WrongAddress):
        return True
    return False


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for what the watch's thread does, for 10 seconds at most."""
    pause = threading.Event()
    assert any(true() or pause.wait(0.01) for _ in range(1000))
