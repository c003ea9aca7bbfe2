"""Rules by what the caller's pod is: its labels and its owner."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from podproof._authorization.rules import Rule, Rules
from podproof.errors import NotAllowed
from podproof.identity import Owner, Pod, PodIdentity, ServiceAccount

WEB = Owner("ReplicaSet", "web-7d4b9c6f5", "apps")
POD = Pod(
    "default", "web-7d4b9c6f5-x2x4v", "uid", labels={"team": "payments", "app.kubernetes.io/name": "web"}, owner=WEB
)
CALLER = PodIdentity(ServiceAccount("default", "web"), POD, "bob", 0)


def denial(rule: Rule, **pod: Any) -> str | None:
    """Return why a rule denies a caller whose pod has these changes, None if it allows it."""
    try:
        Rules([rule]).check(dataclasses.replace(CALLER, pod=dataclasses.replace(POD, **pod)), "GET", "/")
    except NotAllowed as denied:
        return denied.reason
    return None


def denial_of_owner(name: str, owner: Owner | None, labels: Mapping[str, str] | None = None) -> str | None:
    return denial(Rule("/", allow=["*/*"], owner=name), owner=owner, labels=labels or {})


def test_a_pod_needs_all_labels_of_a_rule() -> None:
    rule = Rule("/", allow=["*/*"], labels={"team": "payments", "app.kubernetes.io/name": "web"})
    assert denial(rule) is None
    assert denial(rule, labels={**POD.labels, "more": "x"}) is None
    for labels in ({}, {"team": "payments"}, {**POD.labels, "team": "Payments"}, {**POD.labels, "team": ""}):
        assert "does not have the label" in (denial(rule, labels=labels) or "")


def test_a_label_without_a_value_is_not_a_missing_one() -> None:
    rule = Rule("/", allow=["*/*"], labels={"trusted": ""})
    assert denial(rule, labels={"trusted": ""}) is None
    assert denial(rule, labels={}) == "rule * /: pod default/web-7d4b9c6f5-x2x4v does not have the label trusted="


def test_labels_and_an_owner_do_not_replace_the_service_account() -> None:
    rule = Rule("/", allow=["default/other"], labels={"team": "payments"}, owner="ReplicaSet/*")
    assert denial(rule) == "rule * /: default/web is not among default/other"
    assert denial(Rule("/", allow=[], labels={"team": "payments"})) == "rule * /: allows no one"


def test_the_first_rule_for_a_path_decides_by_labels_too() -> None:
    rules = Rules([Rule("/", allow=["*/*"], labels={"team": "x"}), Rule("/", allow=["*/*"])])
    with pytest.raises(NotAllowed):
        rules.check(CALLER, "GET", "/")


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("ReplicaSet/web-7d4b9c6f5", WEB),
        ("ReplicaSet.apps/web-*", WEB),
        ("StatefulSet/db", Owner("StatefulSet", "db", "apps")),
        ("DaemonSet/agent", Owner("DaemonSet", "agent", "apps")),
        ("Job/report-*", Owner("Job", "report-manual", "batch")),
        ("Node/node1", Owner("Node", "node1")),
        ("Rollout.argoproj.io/web", Owner("Rollout", "web", "argoproj.io")),
        ("CronJob/report", Owner("Job", "report-29384756", "batch")),
        ("CronJob/report-1", Owner("Job", "report-1-1763078400", "batch")),
    ],
)
def test_a_pod_of_the_named_owner_is_allowed(name: str, owner: Owner) -> None:
    assert denial_of_owner(name, owner) is None


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("ReplicaSet/web-7d4b9c6f5", None),
        ("ReplicaSet/web", WEB),
        ("replicaset.apps/web-7d4b9c6f5", WEB),
        ("ReplicaSet/web-7d4b9c6f5", Owner("ReplicaSet", "web-7d4b9c6f5", "example.com")),
        ("ReplicaSet/web-7d4b9c6f5", Owner("ReplicaSet", "web-7d4b9c6f5")),
        ("StatefulSet/db", Owner("StatefulSet", "db", "apps.kruise.io")),
        ("StatefulSet/db", Owner("StatefulSet", "db\n", "apps")),
        ("StatefulSet/db", Owner("Deployment", "db", "apps")),
        ("CronJob/report", Owner("Job", "report-manual", "batch")),
        ("CronJob/report", Owner("Job", "report-29384756-1", "batch")),
        ("CronJob/report", Owner("Job", "report-1-29384756", "batch")),
        ("CronJob/report", Owner("Job", "report-29384756", "example.com")),
    ],
)
def test_a_pod_of_another_owner_is_denied(name: str, owner: Owner | None) -> None:
    assert denial_of_owner(name, owner) == f"rule * /: pod {POD} does not belong to {name}"


@pytest.mark.parametrize(
    ("replica_set", "template_hash", "deployment"),
    [
        ("web-7d4b9c6f5", "7d4b9c6f5", "web"),
        ("web-canary-7d4b9c6f5", "7d4b9c6f5", "web-canary"),
        ("web-7d4b9c6f5", "other", None),
        ("web-7d4b9c6f5", "", None),
        ("web-", "", None),
        ("web-7d4b9c6f5", None, None),
        ("-7d4b9c6f5", "7d4b9c6f5", None),
        ("web-canary-7d4b9c6f5", "canary-7d4b9c6f5", "web"),
    ],
)
def test_a_deployment_is_its_replica_set_s_name_without_the_hash(
    replica_set: str, template_hash: str | None, deployment: str | None
) -> None:
    labels = {} if template_hash is None else {"pod-template-hash": template_hash}
    owner = Owner("ReplicaSet", replica_set, "apps")
    matching = [
        name
        for name in ("web", "web-canary", "web-", "web-7d4b9c6f5", "canary")
        if denial_of_owner(f"Deployment/{name}", owner, labels) is None
    ]
    assert matching == ([] if deployment is None else [deployment])
    assert denial_of_owner("Deployment/*", Owner("ReplicaSet", replica_set, "example.com"), labels) is not None


@pytest.mark.parametrize(
    "owner",
    [
        "",
        "web",
        "Deployment",
        "Deployment/",
        "/web",
        "Deployment/web/x",
        "Rollout/web",
        "deployment/web",
        "A.B/web",
        "A./w",
    ],
)
def test_an_owner_of_another_form_is_an_error(owner: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid owner .*: expected the form"):
        Rule("/", allow=["*/*"], owner=owner)


@pytest.mark.parametrize(
    "labels",
    [
        {"": "x"},
        {"team": "a b"},
        {"team": "-a"},
        {"team": "x" * 64},
        {"x" * 64: ""},
        {"/team": "x"},
        {"example.com/": "x"},
        {"a/b/c": "x"},
        {"team": None},
        {"team": 7},
        {7: "x"},
        {"team": "x\n"},
        {"team": "*"},
    ],
)
def test_what_no_label_can_be_is_an_error(labels: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"^invalid labels .*: expected a label, such as"):
        Rule("/", allow=["*/*"], labels=labels)


def test_labels_that_are_no_mapping_are_an_error() -> None:
    for labels in ("team=payments", ["team"], {"team"}):
        with pytest.raises(TypeError, match=r"^invalid labels .*: expected a mapping"):
            Rule("/", allow=["*/*"], labels=labels)  # type: ignore[arg-type]  # this is what is tested
