from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.contract import ACCESS, REVIEWS, Side

if TYPE_CHECKING:
    from podproof.testing import Cluster

KIND = {"Content-Type": "application/json"}


@pytest.mark.parametrize("body", [b"", b"nope", b"[]", b'"x"', b"\xff"])
def test_a_body_that_is_not_an_object_gets_a_400(side: Side, body: bytes) -> None:
    response = side.ask("POST", REVIEWS, headers=KIND, data=body)
    assert (response["status"], response["content"]["reason"]) == (400, "BadRequest")
    assert "the object provided is unrecognized (must be of type TokenReview)" in response["content"]["message"]


@pytest.mark.parametrize("spec", [[], "x", {"token": 5}, {"token": "x", "audiences": "bob"}])
def test_a_field_of_the_wrong_type_gets_a_400(side: Side, spec: object) -> None:
    assert side.ask("POST", REVIEWS, {"spec": spec})["status"] == 400


def test_a_token_can_be_bound_only_to_a_pod(side: Side) -> None:
    side.account("alice")
    response = side.request_token("alice", boundObjectRef={"kind": "Node", "apiVersion": "v1", "name": "x"})
    assert response["status"] == 400
    assert "cannot bind token to object of type /v1, Kind=Node" in response["content"]["message"]


def test_unknown_subresources_get_a_404_and_wrong_methods_a_405(side: Side) -> None:
    side.alice()
    requests = [("GET", "pods/alice/status"), ("GET", "pods/alice/log"), ("PUT", "pods/alice"), ("POST", "pods/alice")]
    assert [side.ask(method, side.path(path), {})["status"] for method, path in requests] == [405, 404, 405, 405]


def test_a_wrong_method_for_a_url_gets_a_405(side: Side) -> None:
    assert [side.ask(method, "/version")["status"] for method in ("POST", "GET")] == [405, 200]


def test_deleting_a_namespace_deletes_its_objects(side: Side, cluster: Cluster) -> None:
    side.alice()
    side.ask("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default-2/roles", {"metadata": {"name": "x"}})
    gone = side.ask("DELETE", "/api/v1/namespaces/default-2")
    assert gone["content"]["status"] == {"phase": "Terminating"}
    assert side.ask("GET", "/api/v1/namespaces/default-2")["status"] == 404
    assert side.ask("GET", side.path("pods"))["content"]["items"] == []
    cluster.pod("default-2/alice")


def test_an_object_is_found_by_its_api_group(side: Side) -> None:
    response = side.ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/nothing")
    assert response["content"]["message"] == 'clusterroles.rbac.authorization.k8s.io "nothing" not found'
    assert side.ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:basic-user")["status"] == 200


def test_a_pod_that_has_finished_is_deleted_at_once(side: Side, cluster: Cluster) -> None:
    alice = cluster.pod("default/alice", phase="Succeeded")
    side.ask("DELETE", "/api/v1/namespaces/default/pods/alice")
    assert alice.uid not in str(side.ask("GET", "/api/v1/pods")["content"])


def test_an_access_review_can_be_about_a_user(side: Side, cluster: Cluster) -> None:
    cluster.grant("carol", verbs=["get"], resources=["pods"])
    asked = {"resourceAttributes": {"verb": "get", "resource": "pods"}}
    statuses = [
        side.ask("POST", f"{ACCESS}/subjectaccessreviews", {"spec": {**asked, "user": user}})["content"]["status"]
        for user in ("carol", "dave")
    ]
    assert (
        statuses[0]["reason"]
        == 'RBAC: allowed by ClusterRoleBinding "granted-1" of ClusterRole "granted-1" to User "carol"'
    )
    assert statuses[1] == {"allowed": False}


def test_a_malformed_label_selector_gets_a_400(side: Side) -> None:
    assert side.ask("GET", "/api/v1/pods", params={"labelSelector": "a==b=c"})["status"] == 400
