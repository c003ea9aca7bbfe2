from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._request.setup import build_authenticator, check_audiences, log_missing_permissions
from podproof.errors import ConfigurationError
from podproof.options import Options
from podproof.testing import Cluster
from tests.support.fake_api import token


@pytest.fixture
def client(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[APIServerClient]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    client = APIServerClient()
    yield client
    client.close()


def end_of_check() -> None:
    for thread in threading.enumerate():
        if thread.name == "podproof-startup":
            thread.join(10)


@pytest.mark.trap(4)
@pytest.mark.parametrize("theirs", [["https://api"], ["k3s", "https://api"], "https://api"])
def test_the_api_servers_own_audience_is_refused(theirs: object) -> None:
    with pytest.raises(ConfigurationError, match=r"'https://api', which is the API server's own"):
        check_audiences(("bob", "https://api"), token(aud=theirs))


@pytest.mark.parametrize("theirs", [["https://api"], "https://api-of-bob", [], None, 7, {"bob": 1}])
def test_any_other_audience_will_do(theirs: object) -> None:
    check_audiences(("bob",), token(aud=theirs))


@pytest.mark.parametrize("own_token", [None, "", "opaque", "a.b.c"])
def test_what_cannot_be_seen_is_not_checked(own_token: str | None) -> None:
    check_audiences(("bob",), own_token)


@pytest.mark.trap(4)
def test_an_app_for_the_api_servers_own_audience_does_not_start(cluster: Cluster, client: APIServerClient) -> None:
    with pytest.raises(ConfigurationError, match="API server's own"):
        build_authenticator(Options(audience=(cluster.issuer,)), client)


@pytest.mark.trap(13)
def test_missing_permissions_are_said_at_start(client: APIServerClient, caplog: pytest.LogCaptureFixture) -> None:
    log_missing_permissions(client, 5)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "may not create tokenreviews.authentication.k8s.io" in caplog.messages[0]
    assert "may not get pods" in caplog.messages[1]


@pytest.mark.trap(13)
def test_a_permission_in_one_namespace_is_not_enough(
    cluster: Cluster, client: APIServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"], namespace="default")
    cluster.grant("default/bob", verbs=["get"], resources=["pods"], namespace="default")
    log_missing_permissions(client, 5)
    assert len(caplog.records) == 2


def test_with_its_permissions_an_app_starts_in_silence(
    cluster: Cluster, client: APIServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    log_missing_permissions(client, 5)
    assert caplog.records == []


def test_an_api_server_that_is_away_keeps_no_app_from_starting(
    cluster: Cluster, client: APIServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.fail("refuse")
    build_authenticator(Options(audience=("bob",), timeout=0.05), client)
    end_of_check()
    assert "could not check our permissions: API server request failed" in caplog.text


def test_an_app_asks_the_api_server_of_its_surroundings(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["10.1.2.3"])
    authenticator = build_authenticator(Options(audience=("bob",)))
    assert str(authenticator.identify(alice.token("bob"), "10.1.2.3").service_account) == "default/alice"
    end_of_check()
    authenticator.close()


def test_addresses_that_are_not_compared_are_warned_of(
    client: APIServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    build_authenticator(Options(audience=("bob",), source_address="off"), client)
    end_of_check()
    assert any(
        record.levelno == logging.WARNING and "source_address is off" in record.message for record in caplog.records
    )


FORKS = """
import os, threading
from podproof.options import Options
from podproof._request.setup import build_authenticator
build_authenticator(Options(audience=("bob",), timeout=1))
assert "podproof-startup" in {thread.name for thread in threading.enumerate()}
child = os.fork()
if child:
    os.waitpid(child, 0)
    print(*(thread.name for thread in threading.enumerate()))
"""


@pytest.mark.trap(32)
def test_no_process_is_forked_while_permissions_are_checked(cluster: Cluster, client: APIServerClient) -> None:
    # TLS in one thread holds locks of OpenSSL, which a child has for ever.
    cluster.fail("hang")
    told = subprocess.run([sys.executable, "-c", FORKS], check=True, capture_output=True, timeout=60, text=True)
    assert told.stdout == "MainThread\n"
