"""The official client is content with what the emulated API server says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client, config, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podproof.testing import Cluster


# Version 36 of the client calls what urllib3 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:HTTPResponse.getheader:DeprecationWarning")


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Any]:
    configuration: Any = client.Configuration()
    load: Any = config.load_kube_config
    load(str(cluster.kubeconfig), client_configuration=configuration)
    with client.ApiClient(configuration) as made:
        yield made


def test_the_official_client_requests_and_reviews_a_token(cluster: Cluster, api: Any) -> None:
    alice = cluster.pod("default/alice", service_account="alice")
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "alice", "uid": alice.uid}
    request = {"spec": {"audiences": ["bob"], "boundObjectRef": bound}}
    core: Any = client.CoreV1Api(api)
    token = core.create_namespaced_service_account_token("alice", "default", request).status.token
    authentication: Any = client.AuthenticationV1Api(api)
    status = authentication.create_token_review({"spec": {"token": token, "audiences": ["bob"]}}).status
    assert (status.authenticated, status.audiences) == (True, ["bob"])
    assert status.user.extra["authentication.kubernetes.io/pod-uid"] == [alice.uid]


def test_the_official_client_lists_and_watches_pods(cluster: Cluster, api: Any) -> None:
    core: Any = client.CoreV1Api(api)
    cluster.pod("default/alice", addresses=("127.0.0.2",))
    listed = core.list_namespaced_pod("default")
    assert [(pod.metadata.name, pod.status.pod_ip) for pod in listed.items] == [("alice", "127.0.0.2")]
    cluster.pod("default/bob").remove()
    version = listed.metadata.resource_version
    watcher: Any = watch
    received = watcher.Watch().stream(core.list_namespaced_pod, "default", resource_version=version, _request_timeout=5)
    assert [next(received)["type"] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]
    received.close()


def test_the_official_client_raises_its_own_error(api: Any) -> None:
    core: Any = client.CoreV1Api(api)
    with pytest.raises(client.ApiException) as caught:
        core.read_namespaced_pod("nobody", "default")
    assert (caught.value.status, caught.value.reason) == (404, "Not Found")
