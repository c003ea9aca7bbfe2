"""Alice trades her token at an exchange; services without any permission know her pod by what she got, and no thief."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from podproof._token.proof_key import ProofKey
from podproof.exchange.token_request import JWT_BEARER
from tests.integration.pods.actors import CallerPod
from tests.integration.pods.exchange_pods import FOLDER, ExchangePods
from tests.integration.pods.kubectl import Kubectl
from tests.integration.pods.manifests import Manifests


@pytest.fixture(scope="module")
def exchange(deployed: None, kubectl: Kubectl, manifests: Manifests) -> Iterator[ExchangePods]:
    pods = ExchangePods(kubectl, manifests)
    pods.start()
    yield pods
    pods.stop()


@pytest.fixture(scope="module")
def alice(exchange: ExchangePods, kubectl: Kubectl) -> CallerPod:
    pod = exchange.new_pod("alice-trading", "alice")
    kubectl.wait_for(pod.name)
    return pod


@pytest.fixture(scope="module")
def mallory(exchange: ExchangePods, kubectl: Kubectl) -> CallerPod:
    pod = exchange.new_pod("mallory-trading", "mallory")
    kubectl.wait_for(pod.name)
    return pod


def test_alice_is_known_by_her_pod_to_services_without_any_permission_each_by_another_subject(
    exchange: ExchangePods, alice: CallerPod, kubectl: Kubectl
) -> None:
    called = {service: exchange.call(alice, service) for service in ("ledger", "partner")}
    found = {service: json.loads(one.body) for service, one in called.items()}
    assert [one.status for one in called.values()] == [200, 200]
    for known in found.values():
        assert (known["pod"], known["account"]) == (str(alice), f"{kubectl.namespace}/alice")
        assert known["uid"] == alice.object["metadata"]["uid"]
    assert found["ledger"]["sub"] == [f"system:serviceaccount:{kubectl.namespace}:alice"]
    assert found["partner"]["sub"] not in ([], found["ledger"]["sub"])
    assert exchange.call(alice, "ledger", "/transfers").status == 200  # after a question to the exchange


def test_her_token_without_its_key_is_refused_from_every_address(
    exchange: ExchangePods, alice: CallerPod, mallory: CallerPod, kubectl: Kubectl
) -> None:
    traded = exchange.call(alice, "ledger")
    bound = f"DPoP {traded.token}"
    replays = {
        "as it was sent": {"Authorization": bound, "DPoP": traded.proof},
        "without a proof": {"Authorization": bound},
        "as a bearer token": {"Authorization": f"Bearer {traded.token}"},
        "with another key's proof": {
            "Authorization": bound,
            "DPoP": ProofKey().prove("GET", "http://ledger/whoami", token=traded.token),
        },
    }
    assert traded.status == 200
    to = CallerPod(kubectl, "ledger").address
    for sender in (mallory, alice, CallerPod(kubectl, "partner")):
        refused = {
            kind: sender.send(to, token=None, headers={"Host": "ledger", **headers}).status
            for kind, headers in replays.items()
        }
        assert refused == dict.fromkeys(replays, 401)


def test_a_tool_of_an_mcp_server_without_any_permission_knows_her_pod(
    exchange: ExchangePods, alice: CallerPod, mallory: CallerPod
) -> None:
    assert exchange.ask_tools(alice) == [str(alice)] * 2
    with pytest.raises(RuntimeError, match="TokenUnavailable"):
        exchange.ask_tools(mallory)


def test_a_token_for_one_service_is_refused_by_another(
    exchange: ExchangePods, alice: CallerPod, mallory: CallerPod
) -> None:
    traded = exchange.call(alice, "partner")
    assert exchange.replay(mallory, traded, url="http://partner/whoami", seconds=0)["status"] == 200  # it has the key
    assert exchange.replay(mallory, traded, url="http://ledger/whoami", seconds=0)["status"] == 401


def test_her_projected_token_gets_nothing_from_mallorys_address(
    exchange: ExchangePods, alice: CallerPod, mallory: CallerPod
) -> None:
    form = {"grant_type": JWT_BEARER, "assertion": alice.run("cat", f"{FOLDER}/token"), "audience": "ledger"}
    status, body = exchange.post(mallory, "/token", form)
    assert (status, body["error"]) == (400, "invalid_grant")


def test_a_token_of_a_deleted_pod_is_inactive_within_two_seconds(
    exchange: ExchangePods, mallory: CallerPod, kubectl: Kubectl
) -> None:
    short_lived = exchange.new_pod("alice-short-lived", "alice")
    kubectl.wait_for(short_lived.name)
    traded = exchange.call(short_lived, "ledger")
    ledger = CallerPod(kubectl, "ledger")
    assert exchange.post(ledger, "/introspect", {"token": traded.token}, own=True)[1]["active"] is True
    risky = "http://ledger/transfers"
    assert exchange.replay(mallory, traded, url=risky, seconds=0)["status"] == 200  # whoever has the key
    with ThreadPoolExecutor(1) as threads:
        denied = threads.submit(exchange.replay, mallory, traded, url=risky, seconds=60)
        short_lived.delete()
        gone_at = time.time()
    assert denied.result()["status"] == 401
    assert 'error="invalid_token"' in denied.result()["challenge"]
    assert denied.result()["at"] - gone_at <= 2
    assert exchange.post(ledger, "/introspect", {"token": traded.token}, own=True) == (200, {"active": False})
    assert exchange.replay(mallory, traded, url="http://ledger/whoami", seconds=0)["status"] == 200  # until it expires
