from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.testclient import TestClient
from werkzeug.test import Client

from podproof import asgi, wsgi
from podproof._request.setup import build_authenticator, build_authorize, build_pipeline
from podproof.errors import ConfigurationError, NotAllowed
from podproof.identity import PodIdentity
from podproof.options import Options
from podproof.testing import Cluster
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, token
from tests.support.startup import wait_for_startup_check


@pytest.mark.trap(52)
@pytest.mark.parametrize("middleware", [wsgi.PodAuthMiddleware, asgi.PodAuthMiddleware])
@pytest.mark.parametrize("options", [{}, {"policy": "rbac"}, {"exempt": ["/healthz"]}, {"source_address": "off"}])
def test_a_constructor_starts_no_thread_and_opens_no_connection(
    cluster: Cluster, middleware: Any, options: dict[str, Any]
) -> None:
    before = {*threading.enumerate()}
    middleware(None, audience="bob", **options)
    assert {*threading.enumerate()} <= before  # of an emulated API server, some may have ended
    assert cluster.requests == []


@pytest.mark.trap(52)
def test_a_kubeconfig_whose_exec_plugin_hangs_does_not_block_a_constructor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: test
clusters: [{{name: test, cluster: {{server: "https://127.0.0.1:9"}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
users:
- name: test
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      interactiveMode: Never
      command: sh
      args: ["-c", "touch {ran}; sleep 60"]
"""
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    build_pipeline({"audience": "bob"})
    assert not ran.exists()


@pytest.mark.trap(4)
def test_in_a_pod_the_api_servers_own_audience_is_a_configuration_error(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = cluster.mount(tmp_path, "default/bob")
    monkeypatch.setattr("podproof._apiserver.connection.read_mounted_token", (mounted / "token").read_text)
    with pytest.raises(ConfigurationError, match="API server's own"):
        build_authenticator(Options(audience=(cluster.issuer,)))


class ReadOnly:
    """A policy of the user's own."""

    def check(self, identity: PodIdentity, method: str, path: str) -> None:
        if method != "GET":
            raise NotAllowed(f"{identity.display_name} may only read {path}")


def test_a_policy_of_the_users_own_decides_by_caller_method_and_path(make_authenticator: AuthenticatorFactory) -> None:
    authenticator = make_authenticator(policy=ReadOnly())
    authorize = build_authorize(authenticator.options, authenticator)
    assert authorize is not None
    alice = authenticator.authenticate(token(), PEER)
    assert authorize(alice, "GET", "/invoices", NOW + 5) is None
    with pytest.raises(NotAllowed, match="default/alice may only read /invoices"):
        authorize(alice, "POST", "/invoices", NOW + 5)


def test_by_default_the_api_server_is_the_one_that_the_environment_names(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["10.1.2.3"])
    authenticator = build_authenticator(Options(audience=("bob",)))
    token = alice.token("bob")
    assert str(authenticator.authenticate(token, "10.1.2.3").service_account) == "default/alice"
    wait_for_startup_check()
    assert str(authenticator.authenticate(token, "10.1.2.3").pod) == "default/alice-pod"
    assert cluster.count("tokenreviews") == 1
    authenticator.close()


@pytest.mark.trap(13)
def test_missing_permissions_are_logged_with_the_first_request(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    pipeline = build_pipeline({"audience": "bob", "policy": "rbac"})
    assert caplog.messages == []
    for _ in range(2):
        pipeline.begin()
    wait_for_startup_check()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


def test_source_address_off_is_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    build_authenticator(Options(audience=("bob",), source_address="off"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "source_address is off" in caplog.text


@pytest.mark.trap(13, 52)
@pytest.mark.parametrize("middleware", [wsgi.PodAuthMiddleware, asgi.PodAuthMiddleware], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer junk"}], ids=["no credential", "junk"])
@pytest.mark.parametrize("path", ["/healthz", "/"])
def test_any_request_is_the_first_one_of_a_process(
    cluster: Cluster, middleware: Any, headers: dict[str, str], path: str
) -> None:
    app = Starlette() if middleware is asgi.PodAuthMiddleware else Flask("app")
    wrapped = middleware(app, audience="bob", exempt=["/healthz"])
    client: Any = (
        TestClient(wrapped, client=("127.0.0.1", 50000)) if middleware is asgi.PodAuthMiddleware else Client(wrapped)
    )
    assert client.get(path, headers=headers).status_code in (401, 403, 404)
    wait_for_startup_check()
    assert cluster.count("selfsubjectaccessreviews") == 2
