"""The `podproof` command on the real cluster: its manifests are applied unchanged, and it runs in the pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jwt
import pytest

from tests.integration import images
from tests.integration.pods.actors import AppDeployment
from tests.integration.pods.kubectl import Kubectl, eventually

SERVER, CALLER = "printed-bob", "printed-alice"
GUNICORN = [
    "gunicorn",
    "--bind=0.0.0.0:8080",
    "--worker-tmp-dir=/dev/shm",
    "--no-control-socket",
    "examples.flask_bob:app",
]


def run_podproof(*arguments: str) -> str:
    """Run the command here, where the kubeconfig is."""
    command = [sys.executable, "-m", "podproof", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert not done.stderr, done.stderr
    return done.stdout


def run_in_pod(kubectl: Kubectl, deployment: str, *arguments: str) -> str:
    """Run the command in a pod, whatever its exit status."""
    script = 'python3 -m podproof "$@" || true'
    return kubectl("exec", f"deployment/{deployment}", "--", "sh", "-c", script, "podproof", *arguments)


def problems(report: str) -> list[str]:
    """Return the messages of all warnings and failures. Clusters before 1.21 mount tokens that do not expire."""
    findings: list[Mapping[str, str]] = json.loads(report)["findings"]
    return [
        one["message"]
        for one in findings
        if one["level"] in ("warn", "fail") and "valid for years" not in one["message"]
    ]


@pytest.fixture(scope="module")
def server(kubectl: Kubectl) -> str:
    return f"{kubectl.namespace}/{SERVER}"


@pytest.fixture(scope="module")
def applied_manifests(kubectl: Kubectl, server: str) -> Iterator[None]:
    """Apply the printed manifests unchanged; then set the containers' images and commands."""
    caller = f"{kubectl.namespace}/{CALLER}"
    image = images.ensure()
    text = run_podproof("manifests", "--caller", caller, "--audience", "bob", "--server", server)
    kubectl("apply", "--filename", "-", stdin=text)
    address = kubectl.get("service", SERVER)["spec"]["clusterIP"]
    bob = {"image": image, "command": ["python3", "-m", *GUNICORN]}
    variables = [{"name": "BOB_URL", "value": f"http://{address}"}, {"name": "ALICE_PAUSE", "value": "1"}]
    alice = {"image": image, "command": ["python3", "-m", "examples.alice"], "env": variables}
    _patch(kubectl, SERVER, bob)
    kubectl("rollout", "status", f"deployment/{SERVER}", "--timeout", "60s")
    _patch(kubectl, CALLER, alice)
    kubectl("rollout", "status", f"deployment/{CALLER}", "--timeout", "60s")
    yield
    for kind in ("clusterrole", "clusterrolebinding"):
        kubectl("delete", kind, f"podproof-{kubectl.namespace}-{SERVER}", "--ignore-not-found")
    kubectl("delete", "deployment", SERVER, CALLER, "--wait=false")


def _patch(kubectl: Kubectl, deployment: str, container: dict[str, Any]) -> None:
    template = {"spec": {"containers": [{"name": "app", "imagePullPolicy": "IfNotPresent", **container}]}}
    kubectl("patch", "deployment", deployment, "--patch", json.dumps({"spec": {"template": template}}))


def test_the_printed_server_allows_the_printed_caller(applied_manifests: None, kubectl: Kubectl) -> None:
    allowed = f'"service_account":"{kubectl.namespace}/{CALLER}"'
    eventually(lambda: kubectl("logs", f"deployment/{CALLER}"), good=lambda log: "200 {" in log and allowed in log)


def test_the_doctor_finds_no_problems_in_the_pods(applied_manifests: None, kubectl: Kubectl) -> None:
    assert problems(run_in_pod(kubectl, SERVER, "doctor", "--json")) == []
    assert problems(run_in_pod(kubectl, CALLER, "doctor", "--json")) == []


def test_the_doctor_finds_no_problems_from_outside(applied_manifests: None, kubectl: Kubectl, server: str) -> None:
    assert problems(run_podproof("doctor", "--json", "--as", server)) == []
    assert (
        problems(run_podproof("doctor", "--json", "--as", f"{kubectl.namespace}/{CALLER}", "--audience", "bob")) == []
    )


def test_the_doctor_names_the_keys_of_an_app_that_verifies_by_them(
    find_app: Callable[[str], AppDeployment], kubectl: Kubectl
) -> None:
    find_app("bob-keys")
    key_id = jwt.get_unverified_header(kubectl.issue_token("alice", "bob"))["kid"]
    inside = run_in_pod(kubectl, "bob-keys", "doctor", "--json")
    outside = run_podproof("doctor", "--json", "--as", f"{kubectl.namespace}/bob-keys")
    for report in (inside, outside):
        assert problems(report) == []
        messages = [one["message"] for one in json.loads(report)["findings"]]
        assert any(
            f"tokens of https://kubernetes.default.svc.cluster.local: {key_id} (RS256)" in one for one in messages
        )
        assert any(" pods: each process watches them" in one for one in messages)
    assert "the key of our own token is among them" in inside


def test_the_suggested_fix_for_missing_permissions_works(
    applied_manifests: None, kubectl: Kubectl, server: str
) -> None:
    kubectl("delete", "clusterrolebinding", f"podproof-{kubectl.namespace}-{SERVER}")
    missing = f"{server} may not create tokenreviews.authentication.k8s.io, nor get pods"
    ask = ("doctor", "--json")
    found = eventually(
        lambda: run_in_pod(kubectl, SERVER, *ask), good=lambda found: problems(found) == [missing], within=20
    )
    assert problems(run_podproof(*ask, "--as", server)) == [missing]

    (fix,) = [one["fix"] for one in json.loads(found)["findings"] if one["message"] == missing]
    command, pipe, rest = fix.partition(" | ")
    assert (pipe, rest) == (" | ", "kubectl apply -f -")
    kubectl("apply", "--filename", "-", stdin=run_podproof(*command.split()[1:]))
    eventually(lambda: run_in_pod(kubectl, SERVER, *ask), good=lambda found: problems(found) == [], within=20)


def test_a_mounted_token_is_inspected_without_being_shown(applied_manifests: None, kubectl: Kubectl) -> None:
    shown = run_in_pod(kubectl, CALLER, "inspect")
    pod = kubectl("exec", f"deployment/{CALLER}", "--", "hostname").strip()
    assert f"calling bob as {kubectl.namespace}/{CALLER}, only from pod {kubectl.namespace}/{pod}" in shown
    assert "eyJ" not in shown


def test_manifests_with_policy_rbac_are_accepted(kubectl: Kubectl, server: str) -> None:
    caller = f"{kubectl.namespace}/{CALLER}"
    arguments = ("--caller", caller, "--audience", "bob", "--server", server, "--policy", "rbac")
    text = run_podproof("manifests", *arguments)
    done = kubectl("apply", "--dry-run=server", "--filename", "-", stdin=text)
    assert len(done.splitlines()) == 9
