"""Who is not let in, and what they are told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.integration.pods.actors import Answer, Bob, Caller
from tests.integration.pods.kubectl import Kubectl, eventually

CHALLENGE = 'Bearer realm="bob"'
NO_TOKEN = (401, CHALLENGE)
BAD_TOKEN = (401, f'{CHALLENGE}, error="invalid_token"')
WRONG_PLACE = (403, f'{CHALLENGE}, error="insufficient_scope"')


def test_a_call_without_a_token(bob: Bob, alice: Caller) -> None:
    assert alice.send(bob, token=None).told == NO_TOKEN


def test_a_stolen_token_from_another_pod(bob: Bob, alice: Caller, mallory: Caller) -> None:
    token = alice.token()
    assert alice.send(bob, token=token).status == 200
    assert mallory.send(bob, token=token).told == WRONG_PLACE
    assert alice.send(bob, token=token).status == 200
    assert bob.log_lines("403 wrong-address", f"pod={alice}", f"peer={mallory.address}")


@pytest.mark.trap(21)
def test_a_stolen_token_that_bob_has_not_seen_before(
    bob: Bob, alice: Caller, mallory: Caller, kubectl: Kubectl
) -> None:
    token = kubectl.issue_token("alice", "bob", bound_to=alice.object)
    assert mallory.send(bob, token=token).told == WRONG_PLACE


@pytest.mark.trap(22)
def test_a_stolen_token_with_a_forwarded_header_of_the_thief_s_own(bob: Bob, alice: Caller, mallory: Caller) -> None:
    headers = {"X-Forwarded-For": alice.address, "Forwarded": f"for={alice.address}", "X-Real-IP": alice.address}
    assert mallory.send(bob, token=alice.token(), headers=headers).told == WRONG_PLACE


@pytest.mark.trap(24)
def test_a_stolen_token_through_kubectl_port_forward(bob: Bob, alice: Caller) -> None:
    with port_forward(bob) as url:
        headers = {"Authorization": f"Bearer {alice.token()}"}
        assert requests.get(f"{url}/whoami", headers=headers, timeout=20).status_code == 403
    assert bob.log_lines("403 wrong-address", f"pod={alice}", "peer=127.0.0.1", "port-forward")


def test_a_token_for_another_audience(bob: Bob, alice: Caller, kubectl: Kubectl) -> None:
    token = kubectl.issue_token("alice", "carol", bound_to=alice.object)
    assert alice.send(bob, token=token).told == BAD_TOKEN


@pytest.mark.trap(12)
def test_a_token_bound_to_no_pod(bob: Bob, alice: Caller, kubectl: Kubectl) -> None:
    assert alice.send(bob, token=kubectl.issue_token("alice", "bob")).told == BAD_TOKEN


def test_a_token_whose_signature_is_not_the_cluster_s(bob: Bob, alice: Caller) -> None:
    token = alice.token()
    signed, _, signature = token.rpartition(".")
    assert alice.send(bob, token=f"{signed}.{signature[::-1]}").status in {400, 401}


def test_a_pod_s_own_token_for_the_api_server(bob: Bob, new_caller: Callable[..., Caller]) -> None:
    unwary = new_caller(f"unwary-{bob.name}", automountServiceAccountToken=True)
    token = unwary.run("cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert unwary.send(bob, token=token).told == BAD_TOKEN


@pytest.mark.trap(39)
def test_a_websocket_from_another_pod_or_without_a_token(
    find_bob: Callable[[str], Bob], alice: Caller, mallory: Caller
) -> None:
    bob = find_bob("bob-starlette")
    assert alice.send(bob, "/ws", token=None, method="WEBSOCKET").told == NO_TOKEN
    assert mallory.send(bob, "/ws", token=alice.token(), method="WEBSOCKET").told == WRONG_PLACE


def test_a_caller_who_is_not_on_the_list(find_bob: Callable[[str], Bob], alice: Caller, mallory: Caller) -> None:
    choosy = find_bob("bob-choosy")
    assert alice.send(choosy, token=alice.token()).status == 200
    assert mallory.send(choosy, token=mallory.token()).told == WRONG_PLACE
    assert choosy.log_lines("403 not-allowed", f"pod={mallory}")


def test_the_token_of_a_pod_that_is_gone(
    bob: Bob, new_caller: Callable[..., Caller], mallory: Caller, kubectl: Kubectl
) -> None:
    late = new_caller(f"late-{bob.name}")
    seen, unseen = late.token(), kubectl.issue_token("alice", "bob", bound_to=late.object)
    assert late.send(bob, token=seen).status == 200
    late.leave()
    for token in (seen, unseen):
        assert until_not_forbidden(mallory, bob, token).told == BAD_TOKEN


@pytest.mark.trap(14)
def test_the_token_of_a_pod_that_was_made_anew_under_the_same_name(bob: Bob, new_caller: Callable[..., Caller]) -> None:
    name = f"twin-{bob.name}"
    first = new_caller(name)
    token = first.token()
    assert first.send(bob, token=token).status == 200
    first.leave()
    second = new_caller(name)
    assert second.send(bob, token=second.token()).status == 200
    answer = until_not_forbidden(second, bob, token)
    assert answer.told == BAD_TOKEN


@pytest.mark.trap(17)
def test_the_token_of_a_pod_that_has_finished(
    bob: Bob, new_pod: Callable[..., Caller], mallory: Caller, kubectl: Kubectl
) -> None:
    finished = new_pod(f"finished-{bob.name}", script="pass")
    pod = eventually(lambda: finished.object, good=lambda pod: pod["status"]["phase"] == "Succeeded")
    assert mallory.send(bob, token=kubectl.issue_token("alice", "bob", bound_to=pod)).told == BAD_TOKEN
    assert bob.log_lines("401 pod-finished", str(finished))


def until_not_forbidden(caller: Caller, bob: Bob, token: str) -> Answer:
    """Send a token from a wrong place until it is not that alone which is held against it.

    The API server itself vouches for a token for up to 10 s after it last did.
    """
    return eventually(lambda: caller.send(bob, token=token), good=lambda answer: answer.status != 403)


@contextmanager
def port_forward(bob: Bob) -> Iterator[str]:
    command = ["kubectl", "--namespace", bob.kubectl.namespace, "port-forward", f"service/{bob.name}", ":80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()  # Forwarding from 127.0.0.1:40001 -> 8080
        try:
            yield f"http://{said.split()[2]}"
        finally:
            process.terminate()
