"""An app without RBAC permissions logs what is missing, answers 503, and recovers once it has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests


@pytest.mark.trap(13)
def test_missing_permissions_are_logged_and_take_effect_once_granted(
    find_app: Callable[[str], AppDeployment], alice: CallerPod, kubectl: Kubectl, manifests: Manifests
) -> None:
    service_account = manifests.service_account("newcomer")
    kubectl.apply(service_account, *manifests.app("bob-newcomer", service_account="newcomer"))
    newcomer = find_app("bob-newcomer")
    errors = eventually(lambda: newcomer.log_lines("may not"), good=lambda lines: len(lines) == 2, within=10)
    assert "create tokenreviews.authentication.k8s.io" in errors[0]
    assert "get pods" in errors[1]

    response = alice.send(newcomer, token=alice.token())
    assert response.status_and_challenge == (503, None)
    assert int(response.headers["retry-after"]) > 0
    assert newcomer.log_lines("503 unavailable", "create tokenreviews.authentication.k8s.io")

    binding = manifests.get("ClusterRoleBinding")
    binding["metadata"]["name"] += "-newcomer"
    binding["subjects"][0]["name"] = "newcomer"
    kubectl.apply(binding)
    try:
        response = eventually(
            lambda: alice.send(newcomer, token=alice.token()), good=lambda response: response.status != 503
        )
        assert response.json()["pod"] == str(alice)
    finally:
        kubectl("delete", "clusterrolebinding", binding["metadata"]["name"])


def test_the_manifests_grant_two_permissions_only(deployed: None, kubectl: Kubectl) -> None:
    app = f"system:serviceaccount:{kubectl.namespace}:bob"
    assert kubectl("auth", "can-i", "create", "tokenreviews", "--as", app).strip() == "yes"
    for verb, resource in (("list", "pods"), ("watch", "pods"), ("get", "secrets"), ("create", "pods/exec")):
        with pytest.raises(RuntimeError, match="failed"):
            kubectl("auth", "can-i", verb, resource, "--as", app)
