from __future__ import annotations

import logging
import os
import socket
import time as real_time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.permissions import CREATE_TOKENREVIEWS, GET_PODS, Permission
from podproof._apiserver.startup import (
    StartupCheck,
    check_audiences,
    log_missing_permissions,
    own_pod_addresses,
)
from podproof.errors import ConfigurationError, Unavailable
from podproof.testing import Cluster
from tests.support.fake_api import token
from tests.support.startup import wait_for_startup_check

NEEDED = [CREATE_TOKENREVIEWS, GET_PODS]


@pytest.fixture
def client(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[APIServerClient]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    client = APIServerClient()
    yield client
    client.close()


@dataclass
class FakePermissions:
    """Has every permission, and counts what it is asked."""

    token: str | None = None
    asked: int = 0

    def own_token(self) -> str | None:
        return self.token

    def is_allowed(self, permission: Permission, deadline: float) -> bool:
        self.asked += 1
        return True


def soon() -> float:
    return real_time.monotonic() + 5


def startup_check(client: FakePermissions) -> StartupCheck:
    return StartupCheck(client, audiences=["bob"], permissions=NEEDED, timeout=5)


@pytest.mark.trap(4)
@pytest.mark.parametrize("theirs", [["https://api"], ["k3s", "https://api"], "https://api"])
def test_the_api_servers_own_audience_is_an_error(theirs: object) -> None:
    with pytest.raises(ConfigurationError, match="invalid audience 'https://api', which is the API server's own"):
        check_audiences(("bob", "https://api"), token(aud=theirs))


@pytest.mark.parametrize("theirs", [["https://api"], "https://api-of-bob", [], None, 7, {"bob": 1}])
def test_any_other_audience_is_accepted(theirs: object) -> None:
    check_audiences(("bob",), token(aud=theirs))


@pytest.mark.parametrize("own_token", [None, "", "opaque", "a.b.c"])
def test_without_a_readable_token_of_our_own_every_audience_is_accepted(own_token: str | None) -> None:
    check_audiences(("bob",), own_token)


@pytest.mark.trap(13)
def test_missing_permissions_are_logged(client: APIServerClient, caplog: pytest.LogCaptureFixture) -> None:
    log_missing_permissions(client, NEEDED, soon())
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "may not create tokenreviews.authentication.k8s.io" in caplog.messages[0]
    assert "may not get pods" in caplog.messages[1]


@pytest.mark.trap(13)
def test_a_permission_in_one_namespace_is_not_enough(
    cluster: Cluster, client: APIServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"], namespace="default")
    cluster.grant("default/bob", verbs=["get"], resources=["pods"], namespace="default")
    log_missing_permissions(client, NEEDED, soon())
    assert len(caplog.records) == 2


def test_with_all_permissions_nothing_is_logged(
    cluster: Cluster, client: APIServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    log_missing_permissions(client, NEEDED, soon())
    assert caplog.records == []


def test_an_api_server_that_cannot_be_asked_for_permissions_is_logged(
    cluster: Cluster, client: APIServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.fail("refuse")
    log_missing_permissions(client, NEEDED, real_time.monotonic() + 0.05)
    assert "RBAC permissions could not be looked for: API server request failed" in caplog.text


@pytest.mark.trap(56)
@pytest.mark.parametrize(
    ("own", "trusted", "warned"),
    [
        (["10.1.0.9"], ["10.1.0.0/16"], "10.1.0.9, this app's own address, in 10.1.0.0/16"),
        (["10.1.0.9", "fd00::9"], ["10.2.0.0/16", "fd00::/64"], "fd00::9, this app's own address, in fd00::/64"),
        (["10.1.0.9"], ["10.1.0.9/32"], None),  # a sidecar that connects from the pod's own address
        (["10.1.0.9"], ["10.2.0.0/16"], None),
        (["127.0.0.1", "::1"], ["127.0.0.0/8", "::/64"], None),
        ([], ["10.1.0.0/16"], None),
    ],
)
def test_a_trusted_network_with_our_own_pod_in_it_is_a_warning(
    caplog: pytest.LogCaptureFixture, own: list[str], trusted: list[str], warned: str | None
) -> None:
    check = StartupCheck(
        FakePermissions(),
        audiences=["bob"],
        permissions=NEEDED,
        timeout=5,
        trusted_proxies=[ip_network(network) for network in trusted],
        own_addresses=lambda: own,
    )
    check.run()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (warned is not None)
    assert (warned or "") in caplog.text


def test_our_own_addresses_are_those_of_the_host_name_within_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host != "bob-7d9f":
            raise socket.gaierror
        return [(0, 0, 0, "", ("10.1.0.9", 0)), (0, 0, 0, "", ("fe80::9%eth0", 0, 0, 2))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "gethostname", lambda: "bob-7d9f")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert own_pod_addresses() == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert own_pod_addresses() == ["10.1.0.9", "fe80::9"]
    monkeypatch.setattr(socket, "gethostname", lambda: "unknown")
    assert own_pod_addresses() == []


def test_the_check_is_made_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakePermissions()
    check = startup_check(client)
    for process in (1, 1, 2, 2, 1):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        check.begin()
        wait_for_startup_check()
    assert client.asked == 2 * len(NEEDED)


@pytest.mark.trap(4)
def test_after_the_check_has_found_the_api_servers_own_audience_every_review_is_503(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check = startup_check(FakePermissions(token(aud=["bob"])))
    check.begin()
    wait_for_startup_check()
    assert "invalid audience 'bob', which is the API server's own" in caplog.text
    with pytest.raises(Unavailable, match="invalid audience 'bob'"):
        check.raise_if_failed()
