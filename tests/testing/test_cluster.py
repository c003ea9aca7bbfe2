from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
import yaml

if TYPE_CHECKING:
    from podproof.testing import Cluster


def review(cluster: Cluster, token: str, *audiences: str) -> Any:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    answer = requests.post(
        f"{cluster.url}/apis/authentication.k8s.io/v1/tokenreviews",
        json={"spec": {"token": token, "audiences": audiences}},
        headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
        verify=config["clusters"][0]["cluster"]["certificate-authority"],
        timeout=5,
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["status"]


def test_a_good_token_is_accepted(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice", service_account="alice")
    status = review(cluster, alice.token("bob"), "bob")
    assert status["user"]["username"] == "system:serviceaccount:default:alice"


def test_a_forged_token_is_not(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice", service_account="alice")
    assert "authenticated" not in review(cluster, cluster.forge(alice.token("bob")), "bob")
