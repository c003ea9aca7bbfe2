"""A pod that calls as it should is known by its name and its service account."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.integration.pods.actors import Bob, Caller
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import TOKEN_FILE

ROTATION = """
import json, os, sys
from podproof import TokenClient
with TokenClient("bob", path="/dev/shm/token").session() as http:
    for turn in "first", "second":
        os.replace(f"/dev/shm/{turn}", "/dev/shm/token")
        answer = http.get(sys.argv[1], timeout=20)
        print(json.dumps([answer.status_code, hash(answer.request.headers["Authorization"])]))
"""

# Its first calls go out before the API server knows the pod's address.
EARLY = """
import os, time
from podproof import TokenClient
with TokenClient("bob").session() as http:
    while http.get("http://{BOB_SERVICE_HOST}/whoami".format_map(os.environ), timeout=20).status_code != 200:
        time.sleep(0.2)
"""


def test_alice_of_the_manifests_is_known_to_bob(world: None, kubectl: Kubectl) -> None:
    def known() -> list[str]:
        return [line for line in kubectl("logs", "deployment/alice").splitlines() if line.startswith("200 ")]

    line = eventually(known, within=120)[0]
    pod = kubectl("get", "pods", "-l", "app.kubernetes.io/name=alice", "-o", "jsonpath={.items[*].metadata.name}")
    namespace = kubectl.namespace
    assert json.loads(line[4:]) == {"service_account": f"{namespace}/alice", "pod": f"{namespace}/{pod}"}


def test_pods_are_known_by_name_and_service_account(bob: Bob, alice: Caller, mallory: Caller) -> None:
    for caller, account in ((alice, "alice"), (mallory, "mallory")):
        answer = caller.send(bob, token=caller.token())
        assert answer.status == 200
        assert answer.json() == {"service_account": f"{caller.kubectl.namespace}/{account}", "pod": str(caller)}


def test_a_posted_body_reaches_the_app(bob: Bob, alice: Caller) -> None:
    answer = alice.send(bob, "/echo", token=alice.token(), method="POST", body="something to tell")
    assert (answer.status, answer.body) == (200, "something to tell")


def test_the_caller_of_a_websocket_is_known(find_bob: Callable[[str], Bob], alice: Caller) -> None:
    answer = alice.send(find_bob("bob-starlette"), "/ws", token=alice.token(), method="WEBSOCKET")
    assert answer.status == 101
    assert answer.json() == {"service_account": f"{alice.kubectl.namespace}/alice", "pod": str(alice)}


@pytest.mark.trap(19)
def test_a_caller_by_ipv4_is_known_to_a_server_on_both_families(find_bob: Callable[[str], Bob], alice: Caller) -> None:
    assert alice.send(find_bob("bob-dual-stack"), token=alice.token()).json()["pod"] == str(alice)


@pytest.mark.trap(18)
def test_a_pod_that_calls_from_its_first_moment_on_is_known_in_seconds(
    find_bob: Callable[[str], Bob], new_pod: Callable[..., Caller]
) -> None:
    find_bob("bob")
    early = new_pod("early", script=EARLY)
    eventually(lambda: early.object["status"]["phase"], good=lambda phase: phase == "Succeeded")


@pytest.mark.trap(41)
def test_a_session_goes_on_when_the_token_rotates(bob: Bob, alice: Caller, kubectl: Kubectl) -> None:
    for turn, lifetime in (("first", 600), ("second", 601)):
        token = kubectl.issue_token("alice", "bob", bound_to=alice.object, lifetime=lifetime)
        alice.run("sh", "-c", f"cat > /dev/shm/{turn}", stdin=token)
    said = alice.run("python3", "-c", ROTATION, f"http://{bob.host}/whoami")
    (status, token), (later_status, later_token) = map(json.loads, said.splitlines())
    assert (status, later_status) == (200, 200)
    assert later_token != token


@pytest.mark.trap(16)
def test_a_terminating_pod_is_known_as_long_as_it_lives(
    bob: Bob, new_caller: Callable[..., Caller], kubectl: Kubectl
) -> None:
    leaving = new_caller(f"leaving-{bob.name}", terminationGracePeriodSeconds=30)
    kubectl("delete", "pod", leaving.name, "--wait=false")
    assert "deletionTimestamp" in leaving.object["metadata"]
    assert leaving.send(bob, token=leaving.token()).status == 200


def test_the_mounted_token_can_be_read_by_the_pod_s_own_user_alone(alice: Caller) -> None:
    assert alice.run("stat", "--dereference", "--format", "%a %u", TOKEN_FILE).split() == ["600", "65532"]


def test_a_service_named_after_podproof_keeps_no_bob_from_starting(bob: Bob, kubectl: Kubectl) -> None:
    """Kubernetes tells of it in his environment, by names that look like options."""
    assert "PODPROOF_OTHER_SERVICE_HOST=" in kubectl("exec", f"deployment/{bob.name}", "--", "env")
