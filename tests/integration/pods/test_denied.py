"""Requests that are denied, and their responses."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.integration.pods.actors import AppDeployment, CallerPod, PodResponse
from tests.integration.pods.kubectl import Kubectl, eventually

CHALLENGE = 'Bearer realm="bob"'
NO_TOKEN = (401, CHALLENGE)
BAD_TOKEN = (401, f'{CHALLENGE}, error="invalid_token"')
FORBIDDEN = (403, f'{CHALLENGE}, error="insufficient_scope"')


def test_a_request_without_a_token_is_denied(app: AppDeployment, alice: CallerPod) -> None:
    assert alice.send(app, token=None).status_and_challenge == NO_TOKEN


def test_a_stolen_token_is_denied_from_another_pod(app: AppDeployment, alice: CallerPod, mallory: CallerPod) -> None:
    token = alice.token()
    assert alice.send(app, token=token).status == 200
    assert mallory.send(app, token=token).status_and_challenge == FORBIDDEN
    assert alice.send(app, token=token).status == 200
    assert app.log_lines("403 wrong-address", f"pod={alice}", f"peer={mallory.address}")


@pytest.mark.trap(21)
def test_a_stolen_token_that_is_not_cached_is_denied(
    app: AppDeployment, alice: CallerPod, mallory: CallerPod, kubectl: Kubectl
) -> None:
    token = kubectl.issue_token("alice", "bob", bound_to=alice.object)
    assert mallory.send(app, token=token).status_and_challenge == FORBIDDEN


@pytest.mark.trap(22)
def test_a_stolen_token_with_a_forged_forwarded_header_is_denied(
    app: AppDeployment, alice: CallerPod, mallory: CallerPod
) -> None:
    headers = {"X-Forwarded-For": alice.address, "Forwarded": f"for={alice.address}", "X-Real-IP": alice.address}
    assert mallory.send(app, token=alice.token(), headers=headers).status_and_challenge == FORBIDDEN


@pytest.mark.trap(24)
def test_a_stolen_token_is_denied_through_kubectl_port_forward(app: AppDeployment, alice: CallerPod) -> None:
    with port_forward(app) as url:
        headers = {"Authorization": f"Bearer {alice.token()}"}
        assert requests.get(f"{url}/whoami", headers=headers, timeout=20).status_code == 403
    assert app.log_lines("403 wrong-address", f"pod={alice}", "peer=127.0.0.1", "port-forward")


def test_a_token_for_another_audience_is_denied(app: AppDeployment, alice: CallerPod, kubectl: Kubectl) -> None:
    token = kubectl.issue_token("alice", "carol", bound_to=alice.object)
    assert alice.send(app, token=token).status_and_challenge == BAD_TOKEN


@pytest.mark.trap(12)
def test_a_token_bound_to_no_pod_is_denied(app: AppDeployment, alice: CallerPod, kubectl: Kubectl) -> None:
    assert alice.send(app, token=kubectl.issue_token("alice", "bob")).status_and_challenge == BAD_TOKEN


def test_a_token_with_a_wrong_signature_is_denied(app: AppDeployment, alice: CallerPod) -> None:
    token = alice.token()
    signed, _, signature = token.rpartition(".")
    assert alice.send(app, token=f"{signed}.{signature[::-1]}").status in {400, 401}


def test_a_pod_s_token_for_the_api_server_is_denied(app: AppDeployment, new_caller: Callable[..., CallerPod]) -> None:
    pod = new_caller(f"automounted-{app.name}", automountServiceAccountToken=True)
    token = pod.run("cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert pod.send(app, token=token).status_and_challenge == BAD_TOKEN


@pytest.mark.trap(39)
def test_a_websocket_without_a_token_or_from_another_pod_is_denied(
    find_app: Callable[[str], AppDeployment], alice: CallerPod, mallory: CallerPod
) -> None:
    app = find_app("bob-starlette")
    assert alice.send(app, "/ws", token=None, method="WEBSOCKET").status_and_challenge == NO_TOKEN
    assert mallory.send(app, "/ws", token=alice.token(), method="WEBSOCKET").status_and_challenge == FORBIDDEN


def test_a_caller_that_is_not_on_the_allow_list_is_denied(
    find_app: Callable[[str], AppDeployment], alice: CallerPod, mallory: CallerPod
) -> None:
    app = find_app("bob-allow-list")
    assert alice.send(app, token=alice.token()).status == 200
    assert mallory.send(app, token=mallory.token()).status_and_challenge == FORBIDDEN
    assert app.log_lines("403 not-allowed", f"pod={mallory}")


def test_the_token_of_a_deleted_pod_is_denied(
    app: AppDeployment, new_caller: Callable[..., CallerPod], mallory: CallerPod, kubectl: Kubectl
) -> None:
    deleted = new_caller(f"deleted-{app.name}")
    cached, uncached = deleted.token(), kubectl.issue_token("alice", "bob", bound_to=deleted.object)
    assert deleted.send(app, token=cached).status == 200
    deleted.delete()
    for token in (cached, uncached):
        assert until_not_forbidden(mallory, app, token).status_and_challenge == BAD_TOKEN


def test_with_a_watch_a_deleted_pod_is_denied_within_two_seconds(
    find_app: Callable[[str], AppDeployment], new_caller: Callable[..., CallerPod], mallory: CallerPod, kubectl: Kubectl
) -> None:
    app = find_app("bob-keys")
    deleted = new_caller("deleted-watched")
    token = deleted.token()
    assert deleted.send(app, token=token).status == 200
    deleted.delete()  # returns when the pod is gone
    eventually(
        lambda: mallory.send(app, token=token),
        good=lambda response: response.status_and_challenge == BAD_TOKEN,
        within=2,
    )


@pytest.mark.trap(14)
def test_the_token_of_a_pod_recreated_under_the_same_name_is_denied(
    app: AppDeployment, new_caller: Callable[..., CallerPod]
) -> None:
    name = f"twin-{app.name}"
    first = new_caller(name)
    token = first.token()
    assert first.send(app, token=token).status == 200
    first.delete()
    second = new_caller(name)
    assert second.send(app, token=second.token()).status == 200
    response = until_not_forbidden(second, app, token)
    assert response.status_and_challenge == BAD_TOKEN


@pytest.mark.trap(17)
def test_the_token_of_a_finished_pod_is_denied(
    app: AppDeployment, new_pod: Callable[..., CallerPod], mallory: CallerPod, kubectl: Kubectl
) -> None:
    finished = new_pod(f"finished-{app.name}", script="pass")
    pod = eventually(lambda: finished.object, good=lambda pod: pod["status"]["phase"] == "Succeeded")
    assert mallory.send(app, token=kubectl.issue_token("alice", "bob", bound_to=pod)).status_and_challenge == BAD_TOKEN
    assert app.log_lines("401 pod-finished", str(finished))


def until_not_forbidden(caller: CallerPod, app: AppDeployment, token: str) -> PodResponse:
    """Send a token from a wrong address until the response is no longer 403 for that address.

    The API server caches an authenticated token for up to 10 s.
    """
    return eventually(lambda: caller.send(app, token=token), good=lambda response: response.status != 403)


@contextmanager
def port_forward(app: AppDeployment) -> Iterator[str]:
    command = ["kubectl", "--namespace", app.kubectl.namespace, "port-forward", f"service/{app.name}", ":80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()  # Forwarding from 127.0.0.1:40001 -> 8080
        try:
            yield f"http://{line.split()[2]}"
        finally:
            process.terminate()
