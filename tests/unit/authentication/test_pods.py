from __future__ import annotations

from typing import Any

import pytest

from podproof._authentication.pods import PodLookup, match_pod, read_record
from podproof.errors import PodFinished, PodGone, ServiceAccountMismatch, Unavailable
from podproof.identity import Owner, Pod, ServiceAccount
from tests.support.fake_api import PEER, FakeAPI, pod

ALICE = ServiceAccount("default", "alice", "account-uid")


def matched(response: dict[str, Any]) -> Pod:
    return match_pod(read_record(response), ALICE, "alice-pod", "pod-uid")


def test_a_live_pod_is_returned(fake_api: FakeAPI) -> None:
    found = PodLookup(fake_api).get(ALICE, "alice-pod", "pod-uid", 0).pod
    assert found == Pod("default", "alice-pod", "pod-uid", (PEER,), "node1")


def test_a_pod_that_does_not_exist_is_pod_gone(fake_api: FakeAPI) -> None:
    fake_api.pod = None
    with pytest.raises(PodGone, match="no pod default/alice-pod"):
        PodLookup(fake_api).get(ALICE, "alice-pod", "pod-uid", 0)


@pytest.mark.trap(14)
@pytest.mark.parametrize("uid", ["another", "", None, 7])
def test_a_recreated_pod_of_the_same_name_is_pod_gone(uid: object) -> None:
    with pytest.raises(PodGone, match="was recreated"):
        matched(pod(metadata={"uid": uid}))


@pytest.mark.trap(15)
@pytest.mark.parametrize("account", ["mallory", "", None, ["alice"]])
def test_a_pod_of_another_service_account_is_denied(account: object) -> None:
    with pytest.raises(ServiceAccountMismatch):
        matched(pod(spec={"serviceAccountName": account}))


@pytest.mark.trap(17)
@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Unknown", "running", "", None, 7, "x" * 1000])
def test_a_finished_pod_is_denied_even_with_a_valid_token(phase: object) -> None:
    with pytest.raises(PodFinished) as raised:
        matched(pod(status={"phase": phase}))
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_pod_may_call_as_soon_as_its_first_container_runs(phase: str) -> None:
    assert matched(pod(status={"phase": phase})).name == "alice-pod"


@pytest.mark.trap(16)
def test_a_terminating_pod_may_call_during_its_grace_period() -> None:
    terminating = {"deletionTimestamp": "2027-01-15T08:00:00Z", "deletionGracePeriodSeconds": 30}
    assert matched(pod(metadata=terminating)).addresses == (PEER,)


@pytest.mark.trap(19)
@pytest.mark.parametrize(
    ("status", "addresses"),
    [
        ({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:DB8::1"}]}, ("10.0.0.1", "2001:db8::1")),
        ({"podIP": "::ffff:10.0.0.1", "podIPs": None}, ("10.0.0.1",)),
        ({"podIP": None, "podIPs": [{"ip": "10.0.0.1"}]}, ("10.0.0.1",)),
        ({"podIP": "10.0.0.1", "podIPs": "10.0.0.2"}, ("10.0.0.1",)),
        ({"podIP": "", "podIPs": [{}, None, "10.0.0.2", {"ip": None}, {"ip": "junk"}, {"ip": 7}]}, ()),
    ],
)
def test_a_pod_has_all_its_addresses(status: dict[str, object], addresses: tuple[str, ...]) -> None:
    assert matched(pod(status=status)).addresses == addresses


@pytest.mark.trap(55)
@pytest.mark.parametrize(
    ("status", "addresses"),
    [
        ({"hostIP": "10.250.0.4", "hostIPs": [{"ip": "10.250.0.4"}, {"ip": "FD00::4"}]}, ("10.250.0.4", "fd00::4")),
        ({"hostIP": "10.250.0.4"}, ("10.250.0.4",)),
        ({}, ()),
    ],
)
def test_a_pod_has_the_addresses_of_its_node(status: dict[str, object], addresses: tuple[str, ...]) -> None:
    found = matched(pod(status=status))
    assert (found.addresses, found.node_addresses) == ((PEER,), addresses)


@pytest.mark.trap(18)
def test_a_pod_may_have_no_address_yet() -> None:
    response = pod(status={"phase": "Pending"})
    del response["status"]["podIP"], response["status"]["podIPs"]
    assert matched(response).addresses == ()


@pytest.mark.trap(20)
@pytest.mark.parametrize(
    ("value", "host_network"), [(None, False), (False, False), (True, True), ("false", True), (0, True)]
)
def test_anything_but_false_means_the_host_network(value: object, host_network: bool) -> None:
    assert matched(pod(spec={"hostNetwork": value})).host_network is host_network


@pytest.mark.parametrize("node", [None, 7])
def test_a_pod_may_have_no_node(node: object) -> None:
    assert matched(pod(spec={"nodeName": node})).node is None


@pytest.mark.trap(9)
@pytest.mark.parametrize("part", ["metadata", "spec", "status"])
@pytest.mark.parametrize("value", [None, [], "text"])
def test_a_pod_without_metadata_spec_or_status_is_an_unusable_response(part: str, value: object) -> None:
    with pytest.raises(Unavailable, match=f"no {part}"):
        matched(pod() | {part: value})


@pytest.mark.trap(9)
@pytest.mark.parametrize(
    "changes", [{"name": "another"}, {"namespace": "another"}, {"name": None}, {"namespace": None}]
)
def test_a_pod_of_another_name_is_an_unusable_response(changes: dict[str, object]) -> None:
    with pytest.raises(Unavailable, match="another pod than default/alice-pod"):
        matched(pod(metadata=changes))


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ({"app": "alice", "tier": "web"}, {"app": "alice", "tier": "web"}),
        ({"app": 7, "tier": "web"}, {"tier": "web"}),
        (None, {}),
        ("app", {}),
    ],
)
def test_a_pod_has_its_labels(labels: object, kept: dict[str, str]) -> None:
    assert matched(pod(metadata={"labels": labels})).labels == kept


def test_pods_with_the_same_labels_and_owner_share_them() -> None:
    metadata = {"labels": {"app": "alice"}, "ownerReferences": [reference()]}
    one, another = (read_record(pod(metadata=metadata | {"name": name})) for name in ("one", "another"))
    assert one.labels is another.labels
    assert one.owner is another.owner


def reference(**changes: object) -> dict[str, object]:
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": True, **changes}


@pytest.mark.parametrize(
    ("references", "owner"),
    [
        ([reference()], Owner("ReplicaSet", "web-1", "apps")),
        ([reference(controller=False), reference(kind="Job", apiVersion="batch/v1")], Owner("Job", "web-1", "batch")),
        ([reference(kind="Node", apiVersion="v1", name="node1")], Owner("Node", "node1")),
        ([7, reference()], Owner("ReplicaSet", "web-1", "apps")),
        ([reference(), reference(name="web-2")], None),
        ([reference(controller=False)], None),
        ([reference(controller="true")], None),
        ([reference(kind=None)], None),
        ([reference(name=7)], None),
        ([reference(apiVersion=["apps/v1"])], None),
        ([], None),
        ("ReplicaSet", None),
        (None, None),
    ],
)
def test_the_owner_of_a_pod_is_its_one_controller(references: object, owner: Owner | None) -> None:
    assert matched(pod(metadata={"ownerReferences": references})).owner == owner
