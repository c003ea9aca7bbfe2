from __future__ import annotations

from typing import Any

import pytest
import yaml

from podproof.cli.errors import CommandError
from podproof.cli.manifests import Part, manifests
from podproof.identity import ServiceAccount

ALICE = ServiceAccount("default", "alice")
CARL = ServiceAccount("shop", "carl")
BOB = ServiceAccount("default", "bob")


def documents(*callers: ServiceAccount, server: ServiceAccount | None = BOB, **more: Any) -> dict[str, dict[str, Any]]:
    loaded = [*yaml.safe_load_all(manifests("bob", server, callers, **more))]
    named = {"{kind} {metadata[name]}".format_map(each): each for each in loaded}
    assert len(named) == len(loaded)
    return named


def rules(found: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    return [(rule["verbs"][0], rule["resources"][0]) for rule in found["ClusterRole podproof-default-bob"]["rules"]]


def environment(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    (container,) = found["Deployment bob"]["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


def test_both_sides_are_there() -> None:
    assert [*documents(ALICE)] == [
        "ClusterRole podproof-default-bob",
        "ClusterRoleBinding podproof-default-bob",
        "ServiceAccount bob",
        "Service bob",
        "Deployment bob",
        "ServiceAccount alice",
        "Deployment alice",
    ]


def test_the_server_may_do_what_podproof_needs_and_no_more() -> None:
    found = documents(ALICE)
    assert rules(found) == [("create", "tokenreviews"), ("get", "pods")]
    assert found["ClusterRoleBinding podproof-default-bob"]["subjects"] == [
        {"kind": "ServiceAccount", "namespace": "default", "name": "bob"}
    ]
    assert environment(found) == {"PODPROOF_AUDIENCE": "bob", "PODPROOF_ALLOW": "default/alice"}


def test_where_rbac_decides_the_server_may_ask_it_and_each_caller_is_given_a_path() -> None:
    found = documents(ALICE, CARL, rbac=True)
    assert rules(found) == [("create", "tokenreviews"), ("get", "pods"), ("create", "subjectaccessreviews")]
    assert environment(found) == {"PODPROOF_AUDIENCE": "bob", "PODPROOF_POLICY": "rbac"}
    assert found["ClusterRole bob-shop-carl"]["rules"] == [{"nonResourceURLs": ["/whoami"], "verbs": ["get"]}]
    assert found["ClusterRoleBinding bob-shop-carl"]["subjects"][0]["namespace"] == "shop"


def test_a_caller_mounts_a_token_for_the_audience_where_the_client_looks_for_it() -> None:
    spec = documents(ALICE)["Deployment alice"]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "alice"
    assert spec["volumes"][0]["projected"]["sources"] == [
        {"serviceAccountToken": {"audience": "bob", "expirationSeconds": 3600, "path": "token"}}
    ]
    (mount,) = spec["containers"][0]["volumeMounts"]
    assert mount == {"name": "podproof", "mountPath": "/var/run/secrets/podproof/bob", "readOnly": True}


def test_without_callers_the_servers_own_namespace_is_allowed() -> None:
    assert environment(documents())["PODPROOF_ALLOW"] == "default/*"


@pytest.mark.parametrize(
    ("only", "kinds"),
    [
        ("rbac", ["ClusterRole", "ClusterRoleBinding"]),
        ("server", ["ServiceAccount", "Service", "Deployment"]),
        ("caller", ["ServiceAccount", "Deployment"]),
    ],
)
def test_a_part_alone_is_printed_on_demand(only: Part, kinds: list[str]) -> None:
    assert [name.partition(" ")[0] for name in documents(ALICE, only=only)] == kinds


def test_callers_alone_have_no_server_to_be_granted_anything_by() -> None:
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
def test_who_is_missing_is_said(
    audience: str | None,
    server: ServiceAccount | None,
    callers: list[ServiceAccount],
    only: Part | None,
    missing: str,
) -> None:
    with pytest.raises(CommandError, match=missing):
        manifests(audience, server, callers, only=only)


def test_permissions_need_no_audience() -> None:
    assert manifests(None, BOB, [], only="rbac").startswith("#")
