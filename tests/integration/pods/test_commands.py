"""The `podproof` command on the real cluster: what it prints is applied as it stands, and it is run in the pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.integration import images
from tests.integration.pods.kubectl import Kubectl, eventually

SERVER, CALLER = "printed-bob", "printed-alice"
GUNICORN = [
    "gunicorn",
    "--bind=0.0.0.0:8080",
    "--worker-tmp-dir=/dev/shm",
    "--no-control-socket",
    "examples.flask_bob:app",
]


def podproof(*arguments: str) -> str:
    """Run the command here, where the kubeconfig is."""
    command = [sys.executable, "-m", "podproof", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert not done.stderr, done.stderr
    return done.stdout


def inside(kubectl: Kubectl, deployment: str, *arguments: str) -> str:
    """Run the command in a pod, whatever its exit status."""
    script = 'python3 -m podproof "$@" || true'
    return kubectl("exec", f"deployment/{deployment}", "--", "sh", "-c", script, "podproof", *arguments)


def wrong(printed: str) -> list[str]:
    """Return what the doctor says is broken. A token without an end is the way of clusters before 1.21."""
    findings: list[Mapping[str, str]] = json.loads(printed)["findings"]
    return [one["seen"] for one in findings if one["level"] != "ok" and "good for years" not in one["seen"]]


@pytest.fixture(scope="module")
def server(kubectl: Kubectl) -> str:
    return f"{kubectl.namespace}/{SERVER}"


@pytest.fixture(scope="module")
def printed(kubectl: Kubectl, server: str) -> Iterator[None]:
    """Apply what is printed as it stands; then put in what runs in the containers."""
    caller = f"{kubectl.namespace}/{CALLER}"
    image = images.ensure()
    text = podproof("manifests", "--caller", caller, "--audience", "bob", "--server", server)
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


def test_the_server_that_was_printed_knows_the_caller_that_was_printed(printed: None, kubectl: Kubectl) -> None:
    known = f'"service_account":"{kubectl.namespace}/{CALLER}"'
    eventually(lambda: kubectl("logs", f"deployment/{CALLER}"), good=lambda log: "200 {" in log and known in log)


def test_the_doctor_finds_nothing_wrong_in_the_pods(printed: None, kubectl: Kubectl) -> None:
    assert wrong(inside(kubectl, SERVER, "doctor", "--json")) == []
    assert wrong(inside(kubectl, CALLER, "doctor", "--json")) == []


def test_the_doctor_finds_nothing_wrong_from_outside(printed: None, kubectl: Kubectl, server: str) -> None:
    assert wrong(podproof("doctor", "--json", "--as", server)) == []
    assert wrong(podproof("doctor", "--json", "--as", f"{kubectl.namespace}/{CALLER}", "--audience", "bob")) == []


def test_what_the_doctor_says_mends_it(printed: None, kubectl: Kubectl, server: str) -> None:
    kubectl("delete", "clusterrolebinding", f"podproof-{kubectl.namespace}-{SERVER}")
    missing = f"{server} may not create tokenreviews.authentication.k8s.io, nor get pods"
    ask = ("doctor", "--json")
    found = eventually(lambda: inside(kubectl, SERVER, *ask), good=lambda found: wrong(found) == [missing], within=20)
    assert wrong(podproof(*ask, "--as", server)) == [missing]

    (mend,) = [one["mend"] for one in json.loads(found)["findings"] if one["seen"] == missing]
    command, pipe, rest = mend.partition(" | ")
    assert (pipe, rest) == (" | ", "kubectl apply -f -")
    kubectl("apply", "--filename", "-", stdin=podproof(*command.split()[1:]))
    eventually(lambda: inside(kubectl, SERVER, *ask), good=lambda found: wrong(found) == [], within=20)


def test_a_mounted_token_is_inspected_without_being_shown(printed: None, kubectl: Kubectl) -> None:
    shown = inside(kubectl, CALLER, "inspect")
    pod = kubectl("exec", f"deployment/{CALLER}", "--", "hostname").strip()
    assert f"calling bob as {kubectl.namespace}/{CALLER}, from pod {kubectl.namespace}/{pod} alone" in shown
    assert "eyJ" not in shown


def test_where_rbac_decides_what_is_printed_is_accepted_too(kubectl: Kubectl, server: str) -> None:
    caller = f"{kubectl.namespace}/{CALLER}"
    arguments = ("--caller", caller, "--audience", "bob", "--server", server, "--policy", "rbac")
    text = podproof("manifests", *arguments)
    done = kubectl("apply", "--dry-run=server", "--filename", "-", stdin=text)
    assert len(done.splitlines()) == 9
