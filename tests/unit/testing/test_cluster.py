from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import jwt
import pytest
import requests

from podproof import testing
from podproof.testing import Cluster, StatusError
from podproof.testing._emulator import tokens
from tests.integration.contract import ADMIN, REVIEWS, Side, access

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.testing.conftest import WallClock


def test_a_stopped_cluster_leaves_no_thread_no_file_and_no_port() -> None:
    before = {*threading.enumerate()}
    cluster = Cluster()
    with cluster, access(str(cluster.kubeconfig)) as way:
        assert way.admin.get(f"{cluster.url}/readyz", timeout=5).text == "ok"
        kubeconfig, url = cluster.kubeconfig, cluster.url
        assert {*threading.enumerate()} - before
    assert {*threading.enumerate()} <= before
    assert not kubeconfig.parent.exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def test_stop_closes_connections_that_clients_keep_open() -> None:
    with Cluster() as cluster, access(str(cluster.kubeconfig)) as way:
        way.admin.get(f"{cluster.url}/readyz", timeout=5)
        cluster.stop()
        cluster.stop()  # once more does nothing


def test_a_cluster_can_be_started_only_once() -> None:
    with Cluster() as cluster:
        with pytest.raises(RuntimeError, match="was started before"):
            cluster.start()
        assert cluster.url
    with pytest.raises(RuntimeError, match="was started before"):
        cluster.start()


def test_a_cluster_that_is_not_stopped_does_not_keep_the_process_alive() -> None:
    code = """
import warnings, requests
from podproof.testing import Cluster
warnings.simplefilter("ignore")
cluster = Cluster(tls=False).start()
cluster.fail("hang", path="/version")
session = requests.Session()
session.trust_env = False
session.get(cluster.url + "/readyz", timeout=5)
try:
    session.get(cluster.url + "/version", timeout=0.1)
except requests.Timeout:
    print("hangs")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("hangs\n", "")


@pytest.mark.parametrize("what", ["url", "kubeconfig"])
def test_a_cluster_that_is_not_started_says_so(what: str) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        getattr(Cluster(), what)
    with pytest.raises(RuntimeError, match="not started"):
        Cluster().kubeconfig_for("default/bob")
    with pytest.raises(RuntimeError, match="not started"), Cluster().isolated():
        pass


def test_a_cluster_can_serve_plain_http(clock: WallClock) -> None:
    with Cluster(tls=False, clock=clock) as cluster, access(str(cluster.kubeconfig)) as way:
        assert cluster.url.startswith("http://127.0.0.1:")
        side = Side(way, "plain", clock.wait, str, patience=0.1)
        assert side.review(side.alice(), "bob")["content"]["status"]["authenticated"]
        with pytest.raises(ValueError, match="'wrong-name': it needs a cluster with TLS"):
            cluster.fail("wrong-name")


def test_a_connection_is_reused_for_the_next_request(side: Side, cluster: Cluster) -> None:
    threads = threading.active_count()
    for _ in range(5):
        side.ask("GET", "/version")
    assert threading.active_count() == threads


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    heavy = ["cryptography", "jwt", "kubernetes", "requests"]
    code = f"import sys, podproof.testing.plugin; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=os.environ)
    assert out.stdout.strip() == "[]"


def test_the_package_has_no_other_public_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clusters'"):
        _ = testing.Clusters
    assert dir(testing) == testing.__all__


def test_a_pod_has_the_given_fields(cluster: Cluster) -> None:
    alice = cluster.pod(
        "default/alice",
        service_account="al.ice",
        addresses=("127.0.0.2", "fd00::2"),
        node="node7",
        phase="Pending",
        host_network=True,
        labels={"app": "alice"},
        owner="ReplicaSet/alice-1",
    )
    assert (alice.namespace, alice.name, alice.service_account) == ("default", "alice", "al.ice")
    assert alice.addresses == ("127.0.0.2", "fd00::2")
    assert alice.peer == ("127.0.0.2", 50000)
    live = alice.json()
    assert live["metadata"]["uid"] == alice.uid
    assert live["metadata"]["labels"] == {"app": "alice"}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "alice-1", "controller": True}
    assert live["metadata"]["ownerReferences"][0].items() >= owner.items()
    static = cluster.pod("default/static", owner="Node/node1").json()
    assert static["metadata"]["ownerReferences"][0]["apiVersion"] == "v1"
    assert (live["spec"]["nodeName"], live["spec"]["hostNetwork"]) == ("node7", True)
    assert live["status"]["phase"] == "Pending"
    assert live["status"]["podIP"] == "127.0.0.2"


def test_a_pod_may_have_no_address_yet(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice", addresses=())
    assert alice.addresses == ()
    assert "podIP" not in alice.json()["status"]


def test_an_update_changes_only_the_given_fields(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice", addresses=("127.0.0.2",), labels={"a": "b"})
    alice.update(phase="Succeeded")
    assert (alice.addresses, alice.json()["status"]["phase"]) == (("127.0.0.2",), "Succeeded")
    alice.update(addresses=("127.0.0.3",))
    assert (alice.addresses, alice.json()["status"]["phase"]) == (("127.0.0.3",), "Succeeded")
    alice.update(addresses=())
    assert alice.addresses == ()
    alice.update(service_account="other", host_network=True, labels={"c": "d"})
    assert (alice.service_account, alice.json()["spec"]["hostNetwork"]) == ("other", True)
    assert alice.json()["metadata"]["labels"] == {"c": "d"}


@pytest.mark.parametrize(("version", "own"), [("1.20", {}), ("1.36", {"kubernetes.io/metadata.name": "payments"})])
def test_a_namespace_has_the_given_labels_and_since_1_21_its_name(version: str, own: dict[str, str]) -> None:
    with Cluster(tls=False, version=version) as cluster, access(str(cluster.kubeconfig)) as way:
        side = Side(way, "payments", lambda _: None, str, patience=0.1)
        for labels in ({"env": "prod"}, {"tier": "1"}, {}):
            cluster.namespace("payments", labels=labels)
            found = side.ask("GET", "/api/v1/namespaces/payments")["content"]
            assert found["metadata"].get("labels", {}) == {**labels, **own}


def test_a_pods_generation_counts_the_changes_of_its_spec(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice")
    alice.update(phase="Pending", labels={"a": "b"})
    assert alice.json()["metadata"]["generation"] == 1
    alice.update(host_network=True)
    assert alice.json()["metadata"]["generation"] == 2
    alice.delete()
    alice.delete(grace=1)
    assert alice.json()["metadata"]["generation"] == 3


def test_a_pod_of_an_old_version_has_no_generation() -> None:
    with Cluster(version="1.32") as cluster:
        alice = cluster.pod("default/alice")
        alice.update(host_network=True)
        assert "generation" not in alice.json()["metadata"]


def test_a_pod_that_is_made_again_has_another_uid(cluster: Cluster) -> None:
    first = cluster.pod("default/alice")
    with pytest.raises(StatusError, match="already exists"):
        cluster.pod("default/alice")
    first.remove()
    second = cluster.pod("default/alice")
    assert first.uid != second.uid
    with pytest.raises(StatusError, match="not found"):
        first.json()
    with pytest.raises(StatusError, match="not found"):
        first.remove()
    assert second.json()["metadata"]["uid"] == second.uid


def test_isolated_undoes_what_changed(cluster: Cluster, side: Side) -> None:
    alice, bob = cluster.pod("default/alice"), cluster.pod("default/bob", labels={"app": "bob"})
    token, kubeconfig = alice.token("bob"), cluster.kubeconfig
    before = cluster.requests
    with cluster.isolated() as same:
        assert same is cluster
        assert cluster.requests == []
        alice.remove()
        cluster.pod("default/alice", phase="Failed")
        bob.update(labels={})
        cluster.pod("default/carol")
        cluster.grant("default/bob", verbs=["get"], resources=["pods"])
        cluster.fail(500, path="/version")
        cluster.fail("refuse")
        cluster.mutate("pods", lambda _: {})
    assert cluster.requests is before
    assert (alice.json()["status"]["phase"], bob.json()["metadata"]["labels"]) == ("Running", {"app": "bob"})
    assert side.review(token, "bob")["content"]["status"]["authenticated"]
    assert [pod["metadata"]["name"] for pod in side.ask("GET", "/api/v1/pods")["content"]["items"]] == ["alice", "bob"]
    assert side.ask("GET", "/version")["status"] == 200
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/granted-1"
    assert side.ask("GET", role)["status"] == 404
    assert cluster.kubeconfig == kubeconfig


def test_isolated_forgets_that_a_token_was_authenticated(cluster: Cluster, side: Side) -> None:
    with cluster.isolated():
        token = cluster.pod("default/alice").token("bob")
        assert side.review(token, "bob")["content"]["status"]["authenticated"]
    assert "authenticated" not in side.review(token, "bob")["content"]["status"]


def test_isolated_contexts_can_be_nested_and_end_after_a_stop(cluster: Cluster) -> None:
    with cluster.isolated():
        alice = cluster.pod("default/alice")
        with cluster.isolated():
            alice.update(phase="Failed")
        assert alice.json()["status"]["phase"] == "Running"
        cluster.stop()


def test_a_watch_sees_what_isolated_undoes(cluster: Cluster, side: Side) -> None:
    alice = cluster.pod("default/alice")
    version = side.ask("GET", "/api/v1/pods")["content"]["metadata"]["resourceVersion"]
    with cluster.isolated():
        alice.remove()
        cluster.pod("default/bob")
    events = side.ask("GET", f"/api/v1/pods?watch=1&timeoutSeconds=0.1&resourceVersion={version}")["content"]
    received = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
    assert received[0] == ("DELETED", "alice")
    assert sorted(received[-2:]) == [("ADDED", "alice"), ("DELETED", "bob")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda cluster: cluster.pod("default/a", service_account="default/a"), "expected its name alone"),
        (lambda cluster: cluster.pod("default/a", phase="running"), "invalid phase 'running': expected one of Pending"),
        (
            lambda cluster: cluster.pod("default/a", addresses="127.0.0.2"),
            "invalid addresses '127.0.0.2': expected a list",
        ),
        (lambda cluster: cluster.grant("default/a", verbs="get"), "invalid verbs 'get': expected a list of strings"),
        (lambda cluster: cluster.kubeconfig_for("bob"), "invalid name 'bob': expected namespace/name"),
        (lambda _: Cluster(version="latest"), "invalid version 'latest': expected a Kubernetes version"),
    ],
)
def test_a_wrong_argument_raises_what_was_expected(
    wrong: Callable[[Cluster], object], message: str, cluster: Cluster
) -> None:
    with pytest.raises(ValueError, match=message):
        wrong(cluster)


def test_a_name_without_a_namespace_is_invalid(cluster: Cluster) -> None:
    for name in ("alice", "/alice", "default/"):
        with pytest.raises(ValueError, match="expected namespace/name"):
            cluster.pod(name)


def test_no_repr_shows_a_token(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice")
    token = alice.token("bob")
    shown = [alice, cluster.service_account("default/bob"), cluster, cluster.requests]
    assert all(token not in repr(thing) for thing in shown)
    assert repr(alice) == f"EmulatedPod(namespace='default', name='alice', uid='{alice.uid}')"


def test_requests_are_recorded_without_credentials(cluster: Cluster, side: Side) -> None:
    token = side.alice()
    cluster.requests.clear()
    side.review(token, "bob")
    side.review(token, "bob", bearer="junk")
    side.ask("GET", side.path(f"pods?limit=7&access_token={token}"), bearer=side.bob())
    assert cluster.count("tokenreviews") == 2
    first, second, *_, last = cluster.requests
    assert (first.method, first.path, first.user, first.verb) == ("POST", REVIEWS, "admin", "create")
    assert second.user == ""
    assert (last.user, last.verb) == ("system:serviceaccount:default-2:bob", "list")
    assert (last.resource, last.namespace, last.name, last.query) == ("pods", "default-2", "", {"limit": "7"})
    assert token not in repr(cluster.requests)


def test_the_kubeconfig_of_a_service_account_has_the_granted_permissions(cluster: Cluster) -> None:
    kubeconfig = cluster.kubeconfig_for("default/bob")
    with access(str(kubeconfig)) as way:

        def statuses() -> list[int]:
            pods = way.admin.get(f"{cluster.url}/api/v1/namespaces/default/pods", timeout=5)
            review = way.admin.post(cluster.url + REVIEWS, json={"spec": {"token": "x"}}, timeout=5)
            return [pods.status_code, review.status_code]

        assert statuses() == [403, 403]
        cluster.grant("default/bob", verbs=["list"], resources=["pods"], api_groups=[""], namespace="default")
        cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"], namespace="default")
        assert statuses() == [200, 403]
        cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        assert statuses() == [200, 201]


def test_urls_can_be_granted_and_to_groups_and_users(cluster: Cluster, side: Side) -> None:
    bob = side.bob()
    cluster.grant("system:serviceaccounts:default-2", verbs=["get"], non_resource_urls=["/metrics/*", "/logs"])
    cluster.grant("system:serviceaccount:default-2:bob", verbs=["list"], resources=["nodes"], namespace="elsewhere")
    paths = ("/metrics/x", "/logs", "/logs/x", "/api/v1/nodes")
    assert [side.ask("GET", path, bearer=bob)["status"] for path in paths] == [404, 404, 403, 403]
    cluster.grant("system:serviceaccount:default-2:bob", verbs=["list"], resources=["nodes"])
    assert side.ask("GET", "/api/v1/nodes", bearer=bob)["status"] == 200


def test_a_rule_can_name_single_objects(side: Side) -> None:
    side.account("alice")
    side.pod("alice", "alice")
    bob = side.bob()
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["alice"]}
    attributes = {"verb": "get", "resource": "pods", "name": "alice", "namespace": "default-2"}
    side.grant(rule, reviewed={"resourceAttributes": attributes})
    statuses = [side.ask("GET", side.path(f"pods/{name}"), bearer=bob)["status"] for name in ("alice", "carol")]
    assert statuses == [200, 403]


def test_a_binding_to_a_missing_role_grants_nothing(side: Side) -> None:
    bob = side.bob()
    body = {
        "metadata": {"name": "dangling"},
        "roleRef": {"kind": "ClusterRole", "name": "nothing"},
        "subjects": [{"kind": "ServiceAccount", "name": "bob", "namespace": "default-2"}],
    }
    side.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body)
    assert side.ask("GET", "/api/v1/pods", bearer=bob)["status"] == 403


def test_mount_writes_the_files_that_the_kubelet_mounts(cluster: Cluster, tmp_path: Path) -> None:
    where = cluster.mount(tmp_path / "serviceaccount", "default/bob")
    assert {path.name for path in where.iterdir()} == {"token", "ca.crt", "namespace"}
    assert (where / "namespace").read_text() == "default"
    assert (where / "ca.crt").read_text() == cluster.ca_pem
    token = (where / "token").read_text()
    response = requests.get(
        f"{cluster.url}/openid/v1/jwks",
        headers={"Authorization": f"Bearer {token}"},
        verify=str(where / "ca.crt"),
        timeout=5,
    )
    assert response.status_code == 200


def test_tokens_are_signed_with_the_key_in_the_jwks(cluster: Cluster, side: Side) -> None:
    token = cluster.pod("default/alice").token("bob")
    keys = jwt.PyJWKSet.from_dict(side.ask("GET", "/openid/v1/jwks")["content"])
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, ["RS256"], audience="bob", issuer=cluster.issuer)
    assert claims["kubernetes.io"]["pod"]["name"] == "alice"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(cluster.forge(token), key, ["RS256"], audience="bob")
    assert tokens.parse(cluster.forge(token)).claims == tokens.parse(token).claims


def test_headers_contain_a_new_token(cluster: Cluster, side: Side) -> None:
    for caller in (cluster.pod("default/alice"), cluster.service_account("default/alice")):
        scheme, token = caller.headers("bob")["Authorization"].split()
        assert scheme == "Bearer"
        assert side.review(token, "bob")["content"]["status"]["authenticated"]


def test_the_date_header_is_the_time_of_the_cluster(cluster: Cluster, clock: WallClock) -> None:
    clock.now = 1_000_000_000
    with access(str(cluster.kubeconfig)) as way:
        response = way.admin.get(f"{cluster.url}/version", timeout=5)
    assert response.headers["Date"] == "Sun, 09 Sep 2001 01:46:40 GMT"


def test_mutate_changes_responses_until_heal(cluster: Cluster, side: Side) -> None:
    token = side.alice()
    cluster.mutate("tokenreviews", lambda response: response | {"status": {"authenticated": "yes"}})
    cluster.mutate("pods", lambda response: b"no JSON at all" if "status" in response else response)
    assert side.review(token, "bob")["content"]["status"] == {"authenticated": "yes"}
    raw = side.way.admin.get(cluster.url + side.path("pods/alice"), timeout=5)
    assert raw.content == b"no JSON at all"
    cluster.heal()
    assert side.review(token, "bob")["content"]["status"]["authenticated"] is True
    assert side.ask("GET", side.path("pods/alice"))["content"]["status"]["phase"] == "Pending"


def test_a_mutation_does_not_change_the_stored_object(cluster: Cluster, side: Side) -> None:
    def spoil(pod: dict[str, dict[str, object]]) -> object:
        pod["metadata"].clear()
        return pod

    side.alice()
    cluster.mutate("pods", spoil)
    assert side.ask("GET", side.path("pods/alice"))["content"]["metadata"] == {}
    cluster.heal()
    assert side.ask("GET", side.path("pods/alice"))["content"]["metadata"]["name"] == "alice"


def test_mutate_changes_the_events_of_a_watch(cluster: Cluster, side: Side) -> None:
    side.alice()
    cluster.mutate("pods", lambda event: {"type": "ERROR"} if event["type"] == "ADDED" else event)
    assert side.ask("GET", side.path("pods?watch=1&timeoutSeconds=0.1"))["content"] == [{"type": "ERROR"}]


def test_the_version_is_the_given_one() -> None:
    with Cluster(version="v1.29.3") as cluster, access(str(cluster.kubeconfig)) as way:
        assert way.admin.get(f"{cluster.url}/version", timeout=5).json()["minor"] == "29"


def test_the_administrator_needs_no_grant(side: Side) -> None:
    assert side.ask("GET", "/api/v1/pods", bearer=ADMIN)["status"] == 200
