"""Kubernetes RBAC as the policy, with real ClusterRoles and bindings."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.permissions import CREATE_ACCESS_REVIEWS
from podproof._apiserver.startup import log_missing_permissions
from podproof._authorization.rbac import RBAC
from podproof._request.setup import build_authenticator
from podproof.options import Options
from tests.integration.contract import ACCESS, Access, Side
from tests.integration.contract import RBAC as ROLES
from tests.support.fake_api import PEER
from tests.support.middleware_client import ClientResponse, MiddlewareClient

BINDING_DELAY = 10.0
"""Seconds until the API server applies a new binding."""


@pytest.fixture(scope="module")
def side(real: Access) -> Iterator[Side]:
    side = Side(real, f"podproof-rbac-{secrets.token_hex(3)}", time.sleep, lambda: "", patience=1)
    yield side
    side.ask("DELETE", f"/api/v1/namespaces/{side.namespace}")


@pytest.fixture(scope="module")
def token(side: Side) -> str:
    token = side.alice("bob")
    side.report("alice", PEER)
    return token


@pytest.fixture(params=["wsgi", "asgi"])
def make_app(
    request: pytest.FixtureRequest, side: Side, token: str
) -> Iterator[Callable[..., Callable[..., ClientResponse]]]:
    """Return a function that makes an app with the RBAC policy and returns what sends Alice's requests to it."""
    opened: list[Any] = []

    def make(**options: Any) -> Callable[..., ClientResponse]:
        policy = RBAC(allowed_ttl=0, denied_ttl=0, **options)
        authenticator = build_authenticator(Options(audience=("bob",), policy=policy))
        opened.append(authenticator)
        client = MiddlewareClient(request.param, authenticator, lambda: None)
        return lambda path, **given: client(path, headers={"Authorization": f"Bearer {token}"}, **given)

    yield make
    for one in opened:
        one.close()


@contextmanager
def granted(side: Side, rule: Mapping[str, Any], subject: Mapping[str, str], *, scope: str = "") -> Iterator[None]:
    """Bind a role of one rule to a subject, in the whole cluster or in one namespace."""
    name = f"podproof-rbac-{secrets.token_hex(3)}"
    prefix, kind = (f"namespaces/{scope}/", "Role") if scope else ("", "ClusterRole")
    roles, bindings = (f"{ROLES}/{prefix}{kind.lower()}{rest}" for rest in ("s", "bindings"))
    side.ask("POST", roles, {"metadata": {"name": name}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    made = side.ask("POST", bindings, {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]})
    assert made["status"] == 201, made
    yield
    side.ask("DELETE", f"{bindings}/{name}")
    side.ask("DELETE", f"{roles}/{name}")


def becomes(status: int, send: Callable[[], ClientResponse]) -> bool:
    """Return True if the response has this status within BINDING_DELAY."""
    deadline = time.monotonic() + BINDING_DELAY
    while send().status != status:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_only_a_bound_cluster_role_allows_alice(
    side: Side, make_app: Callable[..., Callable[..., ClientResponse]]
) -> None:
    send = make_app(prefix=f"/{side.namespace}")
    assert send("/invoices").status == 403
    rule = {"verbs": ["get"], "nonResourceURLs": [f"/{side.namespace}/invoices", f"/{side.namespace}/invoices/*"]}
    alice = {"kind": "ServiceAccount", "name": "alice", "namespace": side.namespace}
    with granted(side, rule, alice):
        assert becomes(200, lambda: send("/invoices"))
        assert send("/invoices/7").status == 200
        assert send("/invoices", method="POST").status == 403
        assert send("/invoices7").status == 403
    assert becomes(403, lambda: send("/invoices"))


def test_the_caller_s_groups_are_part_of_the_access_review(
    side: Side, make_app: Callable[..., Callable[..., ClientResponse]]
) -> None:
    send = make_app()
    group = {
        "kind": "Group",
        "apiGroup": "rbac.authorization.k8s.io",
        "name": f"system:serviceaccounts:{side.namespace}",
    }
    path = f"/{side.namespace}/reports"
    with granted(side, {"verbs": ["post"], "nonResourceURLs": [path]}, group):
        assert becomes(200, lambda: send(path, method="POST"))
        assert send(path).status == 403


def test_a_role_in_one_namespace_can_grant_access_to_a_resource(
    side: Side, make_app: Callable[..., Callable[..., ClientResponse]]
) -> None:
    send = make_app(resource="services/proxy", namespace=side.namespace, name="bob")
    rule = {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": ["bob"], "verbs": ["get", "create"]}
    alice = {"kind": "ServiceAccount", "name": "alice", "namespace": side.namespace}
    assert send("/anything").status == 403
    with granted(side, rule, alice, scope=side.namespace):
        assert becomes(200, lambda: send("/anything"))
        assert send("/anything", method="POST").status == 200
        assert send("/anything", method="DELETE").status == 403


def test_paths_that_a_cluster_lets_every_user_read_are_denied(
    side: Side, make_app: Callable[..., Callable[..., ClientResponse]]
) -> None:
    user = {
        "user": f"system:serviceaccount:{side.namespace}:alice",
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{side.namespace}", "system:authenticated"],
    }
    send = make_app()
    for path in ("/api/invoices", "/apis/x", "/openapi/x", "/healthz", "/version"):
        attributes = {"nonResourceAttributes": {"verb": "get", "path": path}}
        review = side.ask("POST", f"{ACCESS}/subjectaccessreviews", {"spec": user | attributes})
        assert review["content"]["status"]["allowed"] is True
        assert send(path).status == 403


def test_a_missing_permission_is_logged_and_answered_with_503(
    side: Side, make_app: Callable[..., Callable[..., ClientResponse]], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(APIServerClient(impersonate=f"system:serviceaccount:{side.namespace}:nobody")) as client:
        log_missing_permissions(client, [CREATE_ACCESS_REVIEWS], time.monotonic() + 5)
        assert "may not create subjectaccessreviews.authorization.k8s.io" in caplog.text
        assert make_app(reviewer=client)("/invoices").status == 503
        assert "the API server forbids us to create subjectaccessreviews.authorization.k8s.io (403)" in caplog.text
