from __future__ import annotations

from typing import Any

import pytest
import yaml

from podproof.cli.errors import CommandError
from podproof.cli.manifests import Part, render_manifests
from podproof.identity import ServiceAccount

ALICE = ServiceAccount("default", "alice")
CARL = ServiceAccount("shop", "carl")
BOB = ServiceAccount("default", "bob")


def documents(*callers: ServiceAccount, server: ServiceAccount | None = BOB, **more: Any) -> dict[str, dict[str, Any]]:
    loaded = [*yaml.safe_load_all(render_manifests("bob", server, callers, **more))]
    named = {"{kind} {metadata[name]}".format_map(each): each for each in loaded}
    assert len(named) == len(loaded)
    return named


def rules(found: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    return [(rule["verbs"][0], rule["resources"][0]) for rule in found["ClusterRole podproof-default-bob"]["rules"]]


def environment(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    (container,) = found["Deployment bob"]["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


def test_the_documents_of_server_and_caller_are_printed() -> None:
    assert [*documents(ALICE)] == [
        "ClusterRole podproof-default-bob",
        "ClusterRoleBinding podproof-default-bob",
        "ServiceAccount bob",
        "Service bob",
        "Deployment bob",
        "ServiceAccount alice",
        "Deployment alice",
    ]


def test_the_server_gets_only_the_permissions_that_podproof_needs() -> None:
    found = documents(ALICE)
    assert rules(found) == [("create", "tokenreviews"), ("get", "pods")]
    assert found["ClusterRoleBinding podproof-default-bob"]["subjects"] == [
        {"kind": "ServiceAccount", "namespace": "default", "name": "bob"}
    ]
    assert environment(found) == {"PODPROOF_AUDIENCE": "bob", "PODPROOF_ALLOW": "default/alice"}


def test_with_policy_rbac_the_server_may_create_access_reviews_and_each_caller_gets_a_path() -> None:
    found = documents(ALICE, CARL, rbac=True)
    assert rules(found) == [("create", "tokenreviews"), ("get", "pods"), ("create", "subjectaccessreviews")]
    assert environment(found) == {"PODPROOF_AUDIENCE": "bob", "PODPROOF_POLICY": "rbac"}
    assert found["ClusterRole bob-shop-carl"]["rules"] == [{"nonResourceURLs": ["/whoami"], "verbs": ["get"]}]
    assert found["ClusterRoleBinding bob-shop-carl"]["subjects"][0]["namespace"] == "shop"


@pytest.mark.parametrize("rbac", [False, True])
def test_only_for_rules_by_namespace_labels_may_the_server_read_namespaces(rbac: bool) -> None:
    assert ("get", "namespaces") not in rules(documents(ALICE, rbac=rbac))
    assert ("get", "namespaces") in rules(documents(ALICE, rbac=rbac, namespace_labels=True))


def test_a_caller_mounts_its_token_where_the_client_looks_for_it() -> None:
    spec = documents(ALICE)["Deployment alice"]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "alice"
    assert spec["volumes"][0]["projected"]["sources"] == [
        {"serviceAccountToken": {"audience": "bob", "expirationSeconds": 3600, "path": "token"}}
    ]
    (mount,) = spec["containers"][0]["volumeMounts"]
    assert mount == {"name": "podproof", "mountPath": "/var/run/secrets/podproof/bob", "readOnly": True}


def test_without_callers_the_servers_namespace_is_allowed() -> None:
    assert environment(documents())["PODPROOF_ALLOW"] == "default/*"


@pytest.mark.parametrize(
    ("only", "kinds"),
    [
        ("rbac", ["ClusterRole", "ClusterRoleBinding"]),
        ("server", ["ServiceAccount", "Service", "Deployment"]),
        ("caller", ["ServiceAccount", "Deployment"]),
    ],
)
def test_one_part_alone_can_be_printed(only: Part, kinds: list[str]) -> None:
    assert [name.partition(" ")[0] for name in documents(ALICE, only=only)] == kinds


def test_callers_without_a_server_get_no_rbac() -> None:
    assert [*documents(ALICE, server=None, rbac=True)] == ["ServiceAccount alice", "Deployment alice"]


@pytest.mark.parametrize(
    ("audience", "server", "callers", "only", "missing"),
    [
        ("bob", None, [], None, "--server"),
        ("bob", None, [ALICE], "rbac", "--server"),
        ("bob", None, [ALICE], "server", "--server"),
        ("bob", BOB, [], "caller", "--caller"),
        (None, BOB, [ALICE], None, "--audience"),
    ],
)
def test_a_missing_argument_is_named(
    audience: str | None,
    server: ServiceAccount | None,
    callers: list[ServiceAccount],
    only: Part | None,
    missing: str,
) -> None:
    with pytest.raises(CommandError, match=missing):
        render_manifests(audience, server, callers, only=only)


def test_the_rbac_part_needs_no_audience() -> None:
    assert render_manifests(None, BOB, [], only="rbac").startswith("#")
