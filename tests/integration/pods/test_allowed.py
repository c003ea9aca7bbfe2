"""A pod with a valid token is allowed, and identified by its name and its service account."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import TOKEN_FILE

ROTATION = """
import json, os, sys
from podproof import TokenClient
with TokenClient("bob", path="/dev/shm/token").session() as http:
    for turn in "first", "second":
        os.replace(f"/dev/shm/{turn}", "/dev/shm/token")
        response = http.get(sys.argv[1], timeout=20)
        print(json.dumps([response.status_code, hash(response.request.headers["Authorization"])]))
"""

# Its first calls go out before the API server knows the pod's address.
EARLY = """
import os, time
from podproof import TokenClient
with TokenClient("bob").session() as http:
    while http.get("http://{BOB_SERVICE_HOST}/whoami".format_map(os.environ), timeout=20).status_code != 200:
        time.sleep(0.2)
"""


def test_alice_of_the_manifests_is_allowed_by_bob(deployed: None, kubectl: Kubectl) -> None:
    def allowed_lines() -> list[str]:
        return [line for line in kubectl("logs", "deployment/alice").splitlines() if line.startswith("200 ")]

    line = eventually(allowed_lines, within=120)[0]
    pod = kubectl("get", "pods", "-l", "app.kubernetes.io/name=alice", "-o", "jsonpath={.items[*].metadata.name}")
    namespace = kubectl.namespace
    assert json.loads(line[4:]) == {"service_account": f"{namespace}/alice", "pod": f"{namespace}/{pod}"}


def test_pods_are_identified_by_name_and_service_account(
    app: AppDeployment, alice: CallerPod, mallory: CallerPod
) -> None:
    for caller, account in ((alice, "alice"), (mallory, "mallory")):
        response = caller.send(app, token=caller.token())
        assert response.status == 200
        assert response.json() == {"service_account": f"{caller.kubectl.namespace}/{account}", "pod": str(caller)}


def test_a_posted_body_reaches_the_app(app: AppDeployment, alice: CallerPod) -> None:
    response = alice.send(app, "/echo", token=alice.token(), method="POST", body="a body")
    assert (response.status, response.body) == (200, "a body")


def test_the_caller_of_a_websocket_is_identified(find_app: Callable[[str], AppDeployment], alice: CallerPod) -> None:
    response = alice.send(find_app("bob-starlette"), "/ws", token=alice.token(), method="WEBSOCKET")
    assert response.status == 101
    assert response.json() == {"service_account": f"{alice.kubectl.namespace}/alice", "pod": str(alice)}


@pytest.mark.trap(19)
def test_an_ipv4_caller_is_allowed_by_a_dual_stack_server(
    find_app: Callable[[str], AppDeployment], alice: CallerPod
) -> None:
    assert alice.send(find_app("bob-dual-stack"), token=alice.token()).json()["pod"] == str(alice)


@pytest.mark.trap(18)
def test_a_pod_that_calls_as_soon_as_it_starts_is_allowed_within_seconds(
    find_app: Callable[[str], AppDeployment], new_pod: Callable[..., CallerPod]
) -> None:
    find_app("bob")
    early = new_pod("early", script=EARLY)
    eventually(lambda: early.object["status"]["phase"], good=lambda phase: phase == "Succeeded")


@pytest.mark.trap(41)
def test_a_session_uses_the_new_token_after_a_rotation(app: AppDeployment, alice: CallerPod, kubectl: Kubectl) -> None:
    for turn, lifetime in (("first", 600), ("second", 601)):
        token = kubectl.issue_token("alice", "bob", bound_to=alice.object, lifetime=lifetime)
        alice.run("sh", "-c", f"cat > /dev/shm/{turn}", stdin=token)
    output = alice.run("python3", "-c", ROTATION, f"http://{app.host}/whoami")
    (status, token), (later_status, later_token) = map(json.loads, output.splitlines())
    assert (status, later_status) == (200, 200)
    assert later_token != token


@pytest.mark.trap(16)
def test_a_terminating_pod_is_allowed_until_it_is_gone(
    app: AppDeployment, new_caller: Callable[..., CallerPod], kubectl: Kubectl
) -> None:
    leaving = new_caller(f"leaving-{app.name}", terminationGracePeriodSeconds=30)
    kubectl("delete", "pod", leaving.name, "--wait=false")
    assert "deletionTimestamp" in leaving.object["metadata"]
    assert leaving.send(app, token=leaving.token()).status == 200


def test_the_mounted_token_is_readable_only_by_the_pod_s_user(alice: CallerPod) -> None:
    assert alice.run("stat", "--dereference", "--format", "%a %u", TOKEN_FILE).split() == ["600", "65532"]


def test_a_service_named_after_podproof_does_not_keep_an_app_from_starting(
    app: AppDeployment, kubectl: Kubectl
) -> None:
    """Kubernetes injects environment variables for the Service that look like podproof's options."""
    assert "PODPROOF_OTHER_SERVICE_HOST=" in kubectl("exec", f"deployment/{app.name}", "--", "env")
