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


# An app that logs at INFO, as Python itself does not.
LOGGING = "import logging, runpy; logging.basicConfig(level='INFO'); runpy.run_module('gunicorn', run_name='__main__')"


@pytest.mark.parametrize(
    ("service_account", "choice"),
    [
        ("bob", "tokens are verified by TokenReviews: this app may not list pods, nor watch pods"),
        ("bob-keys", "tokens are verified by the signing keys of their issuer"),
    ],
)
def test_auto_takes_what_the_permissions_allow_and_logs_that_once(
    service_account: str,
    choice: str,
    find_app: Callable[[str], AppDeployment],
    alice: CallerPod,
    manifests: Manifests,
) -> None:
    name = f"auto-{service_account}"
    service, deployment = manifests.app(name, env={"PODPROOF_VERIFY": "auto"}, service_account=service_account)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container["command"] = ["python3", "-c", LOGGING]
    alice.kubectl.apply(service, deployment)
    app = find_app(name)
    assert app.log_lines("tokens are verified by") == []
    for lifetime in (600, 601):
        token = alice.kubectl.issue_token("alice", "bob", bound_to=alice.object, lifetime=lifetime)
        assert alice.send(app, token=token).json()["pod"] == str(alice)
    [line] = app.log_lines("tokens are verified by")
    assert line.endswith(choice)


def test_the_manifests_grant_two_permissions_only(deployed: None, kubectl: Kubectl) -> None:
    app = f"system:serviceaccount:{kubectl.namespace}:bob"
    assert kubectl("auth", "can-i", "create", "tokenreviews", "--as", app).strip() == "yes"
    for verb, resource in (("list", "pods"), ("watch", "pods"), ("get", "secrets"), ("create", "pods/exec")):
        with pytest.raises(RuntimeError, match="failed"):
            kubectl("auth", "can-i", verb, resource, "--as", app)
