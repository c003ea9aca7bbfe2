"""Bob and Alice of the examples over gRPC: a pod is identified, and a stolen token is denied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests

ALICE = ("python3", "-m", "examples.callers.grpc_alice")
STOLEN = "/dev/shm/stolen"


@pytest.fixture(scope="module")
def bob(deployed: None, kubectl: Kubectl, manifests: Manifests, alice: CallerPod) -> Iterator[AppDeployment]:
    """Return Bob over gRPC, once he responds."""
    service, deployment = manifests.app("bob-grpc", args=["examples.grpc_bob"], env={"PORT": "8080"})
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del container[probe]["httpGet"]
        container[probe]["tcpSocket"] = {"port": 8080}  # Kubernetes before 1.24 has no probe for gRPC
    kubectl.apply(service, deployment)
    app = AppDeployment(kubectl, "bob-grpc")
    kubectl("rollout", "status", "deployment/bob-grpc", "--timeout", "90s")
    eventually(lambda: _responds(alice, app))
    yield app
    kubectl("delete", "deployment/bob-grpc", "service/bob-grpc", "--wait=false")


def call(caller: CallerPod, app: AppDeployment, **environ: str) -> str:
    """Run Alice's program in a pod, and return what it prints. Raises RuntimeError with what it fails with."""
    given = {"BOB": f"{app.host}:80"} | environ
    return caller.run("env", *(f"{name}={value}" for name, value in given.items()), *ALICE).strip()


def _responds(caller: CallerPod, app: AppDeployment) -> bool:
    try:
        return bool(call(caller, app))
    except RuntimeError:  # connection refused: the Service has no endpoint yet
        return False


def test_a_pod_that_calls_by_grpc_is_identified(bob: AppDeployment, alice: CallerPod, mallory: CallerPod) -> None:
    assert call(alice, bob) == f"{alice.kubectl.namespace}/alice"
    assert call(mallory, bob) == f"{alice.kubectl.namespace}/mallory"


def test_a_stolen_token_is_denied_by_grpc(bob: AppDeployment, alice: CallerPod, mallory: CallerPod) -> None:
    mallory.run("sh", "-c", f"cat > {STOLEN}", stdin=alice.token())
    with pytest.raises(RuntimeError, match="PERMISSION_DENIED"):
        call(mallory, bob, PODPROOF_TOKEN_FILE=STOLEN)
    assert bob.log_lines("PERMISSION_DENIED wrong-address", f"pod={alice}", f"peer={mallory.address}")


def test_a_token_for_another_audience_is_denied_by_grpc(bob: AppDeployment, alice: CallerPod, kubectl: Kubectl) -> None:
    other = kubectl.issue_token("alice", "carol", bound_to=alice.object)
    alice.run("sh", "-c", f"cat > {STOLEN}", stdin=other)
    script = (
        "import grpc, sys; token = open(sys.argv[2]).read().strip()\n"
        "channel = grpc.insecure_channel(sys.argv[1])\n"
        "metadata = [('authorization', 'Bearer ' + token)]\n"
        "channel.unary_unary('/bob.Bob/WhoAmI')(b'', metadata=metadata, timeout=20)"
    )
    with pytest.raises(RuntimeError, match="UNAUTHENTICATED"):
        alice.run("python3", "-c", script, f"{bob.host}:80", STOLEN)
