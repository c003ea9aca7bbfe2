from __future__ import annotations

import json
import ssl
import time
import urllib.request
from email.utils import parsedate_to_datetime
from urllib.error import HTTPError

import pytest

from podproof.testing import Cluster

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
QUESTION = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}


def allowed(cluster: Cluster, token: str, as_user: str) -> bool:
    headers = {"Authorization": f"Bearer {token}", "Impersonate-User": as_user}
    request = urllib.request.Request(cluster.url + REVIEWS, json.dumps(QUESTION).encode(), headers)
    context = ssl.create_default_context(cadata=cluster.ca_pem)
    with urllib.request.urlopen(request, context=context) as response:
        is_allowed: bool = json.load(response)["status"]["allowed"]
    return is_allowed


def test_an_impersonated_request_has_the_permissions_of_the_service_account(cluster: Cluster) -> None:
    cluster.grant("default/carol", verbs=["impersonate"], resources=["serviceaccounts"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    token = cluster.service_account("default/carol").token(cluster.issuer)
    assert allowed(cluster, token, "system:serviceaccount:default:bob")
    assert not allowed(cluster, token, "system:serviceaccount:default:alice")


DENIED = {
    "1.35": 'serviceaccounts "bob" is forbidden: User "system:serviceaccount:default:carol" cannot impersonate resource'
    ' "serviceaccounts" in API group "" in the namespace "default"',
    "1.36": 'selfsubjectaccessreviews.authorization.k8s.io is forbidden: User "system:serviceaccount:default:carol"'
    ' cannot impersonate-on:serviceaccount:create resource "selfsubjectaccessreviews" in API group'
    ' "authorization.k8s.io"'
    " at the cluster scope",
}


@pytest.mark.parametrize("version", DENIED)
def test_a_caller_without_permission_to_impersonate_is_forbidden(version: str) -> None:
    with Cluster(version=version) as cluster:
        token = cluster.service_account("default/carol").token(cluster.issuer)
        with pytest.raises(HTTPError) as denied:
            allowed(cluster, token, "system:serviceaccount:default:bob")
    assert denied.value.code == 403
    assert json.load(denied.value)["message"] == DENIED[version]


def test_impersonation_can_be_granted_for_some_verbs_alone(cluster: Cluster) -> None:
    """KEP-5284: one rule for whom to impersonate, and one for what to do so."""
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    token = cluster.service_account("default/carol").token(cluster.issuer)
    doing = "impersonate-on:serviceaccount:create"
    cluster.grant("default/carol", verbs=[doing], resources=["selfsubjectaccessreviews"])
    with pytest.raises(HTTPError) as denied:
        allowed(cluster, token, "system:serviceaccount:default:bob")
    assert "cannot impersonate:serviceaccount resource" in json.load(denied.value)["message"]
    cluster.grant("default/carol", verbs=["impersonate:serviceaccount"], resources=["serviceaccounts"])
    assert allowed(cluster, token, "system:serviceaccount:default:bob")


def test_a_response_has_a_date_header(cluster: Cluster) -> None:
    context = ssl.create_default_context(cadata=cluster.ca_pem)
    with urllib.request.urlopen(cluster.url + "/version", context=context) as response:
        received = parsedate_to_datetime(response.headers["Date"]).timestamp()
    assert abs(received - time.time()) < 10
