from __future__ import annotations

import time as real_time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import Endpoint, load_configuration
from podproof._apiserver.permissions import GET_PODS
from podproof.errors import Unavailable
from podproof.testing import Cluster


def soon() -> float:
    return real_time.monotonic() + 5


def client_of(kubeconfig: Path, impersonate: str | None = None) -> APIServerClient:
    load = partial(load_configuration, environ={"KUBECONFIG": str(kubeconfig)})
    return APIServerClient(load=load, impersonate=impersonate)


@pytest.fixture
def client(cluster: Cluster) -> Iterator[APIServerClient]:
    client = client_of(cluster.kubeconfig)
    yield client
    client.close()


def test_what_a_path_holds_is_read_with_the_servers_time(client: APIServerClient) -> None:
    answer = client.get("/version", soon())
    assert (answer.status, answer.document["gitVersion"]) == (200, "v1.36.0")
    clock = answer.clock()
    assert clock is not None
    assert abs(clock - real_time.time()) < 10


def test_an_object_that_is_not_there_is_an_answer(cluster: Cluster, client: APIServerClient) -> None:
    assert client.get("/api/v1/namespaces/default/serviceaccounts/nobody", soon()).status == 404


def test_a_server_that_tells_no_time_is_believed_all_the_same(
    client: APIServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("email.utils.formatdate", lambda *_, **__: "some time today")
    answer = client.get("/version", soon())
    assert (answer.status, answer.clock()) == (200, None)


def test_a_client_acts_as_another_service_account(cluster: Cluster) -> None:
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    for name, allowed in (("bob", True), ("alice", False)):
        client = client_of(cluster.kubeconfig, f"system:serviceaccount:default:{name}")
        assert client.is_allowed(GET_PODS, soon()) is allowed
        client.close()


def test_a_permission_can_be_had_in_one_namespace_alone(cluster: Cluster) -> None:
    cluster.grant("default/bob", verbs=["get"], resources=["pods"], namespace="payments")
    client = client_of(cluster.kubeconfig_for("default/bob"))
    there = GET_PODS._replace(namespace="payments")
    assert (client.is_allowed(GET_PODS, soon()), client.is_allowed(there, soon())) == (False, True)
    assert (str(GET_PODS), str(there)) == ("get pods", "get pods in payments")
    client.close()


def test_the_endpoint_is_told_and_whether_its_certificate_is_checked(cluster: Cluster, client: APIServerClient) -> None:
    assert client.endpoint() == Endpoint(cluster.url, verified=True, proxy=None)
    with Cluster(tls=False) as plain:
        assert client_of(plain.kubeconfig).endpoint() == Endpoint(plain.url, verified=False, proxy=None)


def test_a_proxy_on_the_way_is_told_without_its_password(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert client_of(cluster.kubeconfig).endpoint().proxy == "proxy.example:3128"


def test_where_nothing_tells_of_an_api_server_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="set KUBECONFIG"):
        client_of(tmp_path / "none").endpoint()


@pytest.mark.parametrize(
    ("fault", "words"),
    [("foreign-certificate", "unable to get local issuer certificate"), ("wrong-name", "not valid for '127.0.0.1'")],
)
def test_what_is_wrong_with_the_certificate_is_said(
    cluster: Cluster, client: APIServerClient, fault: str, words: str
) -> None:
    cluster.fail(fault)  # type: ignore[arg-type]  # a literal, by way of the table
    with pytest.raises(Unavailable, match=words):
        client.get("/version", soon())


def test_a_pods_own_credential_is_read_from_where_it_is_mounted(cluster: Cluster, tmp_path: Path) -> None:
    mounted = cluster.mount(tmp_path, "default/bob")
    host, port = cluster.url.removeprefix("https://").split(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    client = APIServerClient(load=partial(load_configuration, environ=environ, mounted=mounted))
    assert client.own_token() == (mounted / "token").read_text()
    assert client.get("/version", soon()).status == 200
    client.close()
