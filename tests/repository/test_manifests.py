"""The manifests: complete, consistent with the examples they start, and no more than is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from podproof.client import TokenClient
from podproof.drain.settings import read_drain_settings

MANIFESTS = Path(__file__).parents[2] / "manifests"
KUSTOMIZATION = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
DOCUMENTS: list[dict[str, Any]] = [
    document for name in KUSTOMIZATION["resources"] for document in yaml.safe_load_all((MANIFESTS / name).read_text())
]


def find(kind: str, name: str) -> dict[str, Any]:
    [found] = [one for one in DOCUMENTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod(app: str) -> dict[str, Any]:
    spec: dict[str, Any] = find("Deployment", app)["spec"]["template"]["spec"]
    return spec


def container(app: str) -> dict[str, Any]:
    [found] = pod(app)["containers"]
    only: dict[str, Any] = found
    return only


def environ(app: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(app)["env"]}


def test_the_kustomization_lists_every_file() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(
        path.name for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml"
    )


def test_the_manifests_have_these_documents_only() -> None:
    assert sorted((document["kind"], document["metadata"]["name"]) for document in DOCUMENTS) == [
        ("ClusterRole", "podproof"),
        ("ClusterRoleBinding", "podproof-bob"),
        ("Deployment", "alice"),
        ("Deployment", "bob"),
        ("Service", "bob"),
        ("ServiceAccount", "alice"),
        ("ServiceAccount", "bob"),
    ]


def test_the_role_of_the_server_allows_tokenreviews_and_pods_only() -> None:
    assert find("ClusterRole", "podproof")["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    ]
    binding = find("ClusterRoleBinding", "podproof-bob")
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "podproof"}
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "bob", "namespace": KUSTOMIZATION["namespace"]},
    ]
    assert pod("bob")["serviceAccountName"] == "bob"


def test_the_caller_mounts_one_token_where_the_client_reads_it() -> None:
    [volume] = pod("alice")["volumes"]
    assert volume["projected"] == {
        "sources": [{"serviceAccountToken": {"audience": "bob", "expirationSeconds": 3600, "path": "token"}}]
    }
    [mount] = container("alice")["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert mount["readOnly"] is True
    assert f"{mount['mountPath']}/token" in repr(TokenClient(audience="bob"))
    assert pod("alice")["automountServiceAccountToken"] is False


def test_the_audience_of_the_server_is_that_of_the_token() -> None:
    assert environ("bob")["PODPROOF_AUDIENCE"] == "bob"


def test_the_grace_period_of_the_drain_is_that_of_the_pod() -> None:
    assert "--config=python:podproof.drain.gunicorn" in container("bob")["args"]
    settings = read_drain_settings(environ("bob"))
    assert settings.grace_period == pod("bob")["terminationGracePeriodSeconds"]
    assert settings.idle_timeout < settings.time_limit < settings.grace_period


@pytest.mark.parametrize("app", ["alice", "bob"])
def test_a_container_runs_with_least_privilege(app: str) -> None:
    around, inside = pod(app)["securityContext"], container(app)["securityContext"]
    assert around["runAsNonRoot"] is True
    assert around["runAsUser"] > 0
    assert around["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = container(app)["resources"]
    assert {*resources["requests"]} == {"cpu", "memory"}
    assert "memory" in resources["limits"]


@pytest.mark.parametrize("app", ["alice", "bob"])
def test_a_deployment_selects_its_own_pods(app: str) -> None:
    spec = find("Deployment", app)["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == {"app.kubernetes.io/name": app}


def test_the_service_targets_the_port_of_the_server() -> None:
    service = find("Service", "bob")["spec"]
    [port], [listening] = service["ports"], container("bob")["ports"]
    assert service["selector"] == find("Deployment", "bob")["spec"]["selector"]["matchLabels"]
    assert port["targetPort"] == listening["name"]
    assert f"--bind=0.0.0.0:{listening['containerPort']}" in container("bob")["args"]


def test_only_the_readiness_probe_requests_the_path_that_a_drain_changes() -> None:
    asked = {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    for probe, path in asked.items():
        assert container("bob")[probe]["httpGet"] == {"path": path, "port": "http"}


def test_the_dashboard_selects_label_values_that_are_written() -> None:
    selected = set(re.findall(r'(decision|result)!?=\\"(\w+)\\"', (MANIFESTS / "grafana-dashboard.json").read_text()))
    assert selected == {("decision", "allowed"), ("result", "hit")}
