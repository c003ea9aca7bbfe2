from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from podproof import ServiceAccount
from podproof.cli.manifests import render_manifests
from tests.integration import images
from tests.integration.contract import Access
from tests.integration.pods.actors import AppDeployment, CallerPod
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
    """Return kubectl in a namespace made for this run."""
    kubectl = Kubectl(f"podproof-{secrets.token_hex(3)}")
    kubectl("create", "namespace", kubectl.namespace)
    yield kubectl
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="session")
def manifests(kubectl: Kubectl) -> Manifests:
    return Manifests(kubectl.namespace, images.ensure())


@pytest.fixture(scope="session")
def deployed(kubectl: Kubectl, manifests: Manifests) -> Iterator[None]:
    """Deploy what several tests share: the manifests, apps with other options, and pods that send requests."""
    bob_keys = ServiceAccount(kubectl.namespace, "bob-keys")
    printed = [*yaml.safe_load_all(render_manifests(None, bob_keys, [], keys=True, only="rbac"))]
    roles = [one for one in (*manifests.documents, *printed) if one["kind"].startswith("ClusterRole")]
    kubectl.apply(
        *manifests.documents,
        *printed,
        manifests.service_account("bob-keys"),
        *manifests.app("bob-keys", env={"PODPROOF_VERIFY": "keys"}, service_account="bob-keys"),
        *manifests.app("bob-starlette", args=STARLETTE),
        *manifests.app("bob-dual-stack", args=DUAL_STACK),
        *manifests.app("bob-allow-list", env={"PODPROOF_ALLOW": f"{kubectl.namespace}/al*,elsewhere/*"}),
        *manifests.app("bob-host-network", env={"PODPROOF_HOST_NETWORK": "true"}),
        manifests.service_account("mallory"),
        manifests.service("podproof-other"),
    )
    kubectl.apply(manifests.caller("alice-pod"), manifests.caller("mallory-pod", service_account="mallory"))
    kubectl.wait_for("alice-pod", "mallory-pod")
    yield
    for role in roles:
        kubectl("delete", role["kind"], role["metadata"]["name"])


@pytest.fixture(scope="session")
def alice(deployed: None, kubectl: Kubectl) -> CallerPod:
    return CallerPod(kubectl, "alice-pod")


@pytest.fixture(scope="session")
def mallory(deployed: None, kubectl: Kubectl) -> CallerPod:
    return CallerPod(kubectl, "mallory-pod")


@pytest.fixture(scope="session")
def new_pod(deployed: None, kubectl: Kubectl, manifests: Manifests) -> Callable[..., CallerPod]:
    """Return a function that creates a pod without waiting for it."""

    def make(name: str, **options: Any) -> CallerPod:
        kubectl.apply(manifests.caller(name, **options))
        return CallerPod(kubectl, name)

    return make


@pytest.fixture(scope="session")
def new_caller(new_pod: Callable[..., CallerPod], kubectl: Kubectl) -> Callable[..., CallerPod]:
    """Return a function that creates a pod and waits until it is ready."""

    def make(name: str, **options: Any) -> CallerPod:
        caller = new_pod(name, **options)
        kubectl.wait_for(name)
        return caller

    return make


@pytest.fixture(scope="session")
def find_app(kubectl: Kubectl, alice: CallerPod) -> Callable[[str], AppDeployment]:
    """Return a function that finds an app by name, once it is up and reachable through its Service."""

    def find(name: str) -> AppDeployment:
        app = AppDeployment(kubectl, name)
        kubectl("rollout", "status", f"deployment/{name}", "--timeout", "60s")
        eventually(lambda: _responds(alice, app))
        return app

    return find


@pytest.fixture(scope="session", params=["bob", "bob-starlette", "bob-keys"])
def app(request: pytest.FixtureRequest, find_app: Callable[[str], AppDeployment]) -> AppDeployment:
    """Return the Flask example on gunicorn, as in the manifests, the Starlette example on uvicorn, and Flask with keys.

    The last one verifies tokens by the cluster's signing keys, and watches pods.
    """
    return find_app(request.param)


def _responds(alice: CallerPod, app: AppDeployment) -> bool:
    try:
        return alice.send(app, "/healthz", token=None).status == 200
    except RuntimeError:  # connection refused: the Service has no endpoint yet
        return False
