from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration import images
from tests.integration.contract import Access
from tests.integration.pods.actors import Bob, Caller
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests

STARLETTE = ["uvicorn", "--host=0.0.0.0", "--port=8080", "--no-proxy-headers", "examples.starlette_bob:app"]

# On both families at once: callers by IPv4 have IPv4-mapped IPv6 addresses.
DUAL_STACK = [
    "gunicorn",
    "--bind=[::]:8080",
    "--worker-tmp-dir=/dev/shm",
    "--no-control-socket",
    "examples.flask_bob:app",
]


@pytest.fixture(scope="session")
def kubectl(real: Access) -> Iterator[Kubectl]:
    """Give kubectl in a namespace of this run's own."""
    kubectl = Kubectl(f"podproof-{secrets.token_hex(3)}")
    kubectl("create", "namespace", kubectl.namespace)
    yield kubectl
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="session")
def manifests(kubectl: Kubectl) -> Manifests:
    return Manifests(kubectl.namespace, images.ensure())


@pytest.fixture(scope="session")
def world(kubectl: Kubectl, manifests: Manifests) -> Iterator[None]:
    """Start at once all that several tests share: the manifests, other Bobs, and pods to act in."""
    roles = [document for document in manifests.documents if document["kind"].startswith("ClusterRole")]
    kubectl.apply(
        *manifests.documents,
        *manifests.bob("bob-starlette", args=STARLETTE),
        *manifests.bob("bob-dual-stack", args=DUAL_STACK),
        *manifests.bob("bob-choosy", env={"PODPROOF_ALLOW": f"{kubectl.namespace}/al*,elsewhere/*"}),
        *manifests.bob("bob-host-network", env={"PODPROOF_HOST_NETWORK": "true"}),
        manifests.service_account("mallory"),
        manifests.service("podproof-other"),
    )
    kubectl.apply(manifests.caller("alice-pod"), manifests.caller("mallory-pod", service_account="mallory"))
    kubectl.wait_for("alice-pod", "mallory-pod")
    yield
    for role in roles:
        kubectl("delete", role["kind"], role["metadata"]["name"])


@pytest.fixture(scope="session")
def alice(world: None, kubectl: Kubectl) -> Caller:
    return Caller(kubectl, "alice-pod")


@pytest.fixture(scope="session")
def mallory(world: None, kubectl: Kubectl) -> Caller:
    return Caller(kubectl, "mallory-pod")


@pytest.fixture(scope="session")
def new_pod(world: None, kubectl: Kubectl, manifests: Manifests) -> Callable[..., Caller]:
    """Give what makes a pod, and does not wait for it."""

    def make(name: str, **how: Any) -> Caller:
        kubectl.apply(manifests.caller(name, **how))
        return Caller(kubectl, name)

    return make


@pytest.fixture(scope="session")
def new_caller(new_pod: Callable[..., Caller], kubectl: Kubectl) -> Callable[..., Caller]:
    """Give what makes one more pod to act in, ready."""

    def make(name: str, **how: Any) -> Caller:
        caller = new_pod(name, **how)
        kubectl.wait_for(name)
        return caller

    return make


@pytest.fixture(scope="session")
def find_bob(kubectl: Kubectl, alice: Caller) -> Callable[[str], Bob]:
    """Give what finds a Bob by name, once he is up and his Service leads to him."""

    def find(name: str) -> Bob:
        bob = Bob(kubectl, name)
        kubectl("rollout", "status", f"deployment/{name}", "--timeout", "60s")
        eventually(lambda: _answers(alice, bob))
        return bob

    return find


@pytest.fixture(scope="session", params=["bob", "bob-starlette"])
def bob(request: pytest.FixtureRequest, find_bob: Callable[[str], Bob]) -> Bob:
    """Give Flask's Bob under gunicorn, as the manifests have him, and Starlette's under uvicorn."""
    return find_bob(request.param)


def _answers(alice: Caller, bob: Bob) -> bool:
    try:
        return alice.send(bob, "/healthz", token=None).status == 200
    except RuntimeError:  # refused: the Service does not lead there yet
        return False
