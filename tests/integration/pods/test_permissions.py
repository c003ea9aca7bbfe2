"""A Bob who may not ask the API server says so at once, refuses no caller for it, and recovers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.pods.actors import Bob, Caller
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests


@pytest.mark.trap(13)
def test_a_bob_without_permissions_says_so_and_recovers_when_he_is_given_them(
    find_bob: Callable[[str], Bob], alice: Caller, kubectl: Kubectl, manifests: Manifests
) -> None:
    service_account = manifests.service_account("newcomer")
    kubectl.apply(service_account, *manifests.bob("bob-newcomer", service_account="newcomer"))
    newcomer = find_bob("bob-newcomer")
    complaints = eventually(lambda: newcomer.log_lines("may not"), good=lambda lines: len(lines) == 2, within=10)
    assert "create tokenreviews.authentication.k8s.io" in complaints[0]
    assert "get pods" in complaints[1]

    answer = alice.send(newcomer, token=alice.token())
    assert answer.told == (503, None)
    assert int(answer.headers["retry-after"]) > 0
    assert newcomer.log_lines("503 unavailable", "create tokenreviews.authentication.k8s.io")

    binding = manifests.get("ClusterRoleBinding")
    binding["metadata"]["name"] += "-newcomer"
    binding["subjects"][0]["name"] = "newcomer"
    kubectl.apply(binding)
    try:
        answer = eventually(lambda: alice.send(newcomer, token=alice.token()), good=lambda answer: answer.status != 503)
        assert answer.json()["pod"] == str(alice)
    finally:
        kubectl("delete", "clusterrolebinding", binding["metadata"]["name"])


def test_two_permissions_are_all_that_bob_has(world: None, kubectl: Kubectl) -> None:
    bob = f"system:serviceaccount:{kubectl.namespace}:bob"
    assert kubectl("auth", "can-i", "create", "tokenreviews", "--as", bob).strip() == "yes"
    for verb, resource in (("list", "pods"), ("watch", "pods"), ("get", "secrets"), ("create", "pods/exec")):
        with pytest.raises(RuntimeError, match="failed"):
            kubectl("auth", "can-i", verb, resource, "--as", bob)
