"""Kubernetes RBAC as the policy, where the ClusterRoles and their bindings are real."""

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
from tests.support.middleware_client import Answer, MiddlewareClient

WITHIN = 10.0
"""Seconds in which the API server goes by a new binding."""


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
def serve(request: pytest.FixtureRequest, side: Side, token: str) -> Iterator[Callable[..., Callable[..., Answer]]]:
    """Make an app of Bob's with a policy, which Alice asks."""
    opened: list[Any] = []

    def make(**how: Any) -> Callable[..., Answer]:
        policy = RBAC(allowed_ttl=0, denied_ttl=0, **how)
        authenticator = build_authenticator(Options(audience=("bob",), policy=policy))
        opened.extend((policy, authenticator))
        bob = MiddlewareClient(request.param, authenticator, lambda: None)
        return lambda path, **given: bob(path, headers={"Authorization": f"Bearer {token}"}, **given)

    yield make
    for one in opened:
        one.close()


@contextmanager
def granted(side: Side, rule: Mapping[str, Any], subject: Mapping[str, str], *, scope: str = "") -> Iterator[None]:
    """Bind a role of one rule to somebody, in the whole cluster or in one namespace."""
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


def becomes(status: int, ask: Callable[[], Answer]) -> bool:
    """Tell whether an answer has this status before long."""
    deadline = time.monotonic() + WITHIN
    while ask().status != status:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_bound_cluster_role_lets_alice_in_and_nothing_else_does(
    side: Side, serve: Callable[..., Callable[..., Answer]]
) -> None:
    ask = serve(prefix=f"/{side.namespace}")
    assert ask("/invoices").status == 403
    rule = {"verbs": ["get"], "nonResourceURLs": [f"/{side.namespace}/invoices", f"/{side.namespace}/invoices/*"]}
    alice = {"kind": "ServiceAccount", "name": "alice", "namespace": side.namespace}
    with granted(side, rule, alice):
        assert becomes(200, lambda: ask("/invoices"))
        assert ask("/invoices/7").status == 200
        assert ask("/invoices", method="POST").status == 403
        assert ask("/invoices7").status == 403
    assert becomes(403, lambda: ask("/invoices"))


def test_her_groups_are_passed_on(side: Side, serve: Callable[..., Callable[..., Answer]]) -> None:
    ask = serve()
    group = {
        "kind": "Group",
        "apiGroup": "rbac.authorization.k8s.io",
        "name": f"system:serviceaccounts:{side.namespace}",
    }
    path = f"/{side.namespace}/reports"
    with granted(side, {"verbs": ["post"], "nonResourceURLs": [path]}, group):
        assert becomes(200, lambda: ask(path, method="POST"))
        assert ask(path).status == 403


def test_a_role_in_one_namespace_can_be_about_a_resource(
    side: Side, serve: Callable[..., Callable[..., Answer]]
) -> None:
    ask = serve(resource="services/proxy", namespace=side.namespace, name="bob")
    rule = {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": ["bob"], "verbs": ["get", "create"]}
    alice = {"kind": "ServiceAccount", "name": "alice", "namespace": side.namespace}
    assert ask("/anything").status == 403
    with granted(side, rule, alice, scope=side.namespace):
        assert becomes(200, lambda: ask("/anything"))
        assert ask("/anything", method="POST").status == 200
        assert ask("/anything", method="DELETE").status == 403


def test_what_a_cluster_lets_everybody_read_opens_nothing_here(
    side: Side, serve: Callable[..., Callable[..., Answer]]
) -> None:
    user = {
        "user": f"system:serviceaccount:{side.namespace}:alice",
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{side.namespace}", "system:authenticated"],
    }
    ask = serve()
    for path in ("/api/invoices", "/apis/x", "/openapi/x", "/healthz", "/version"):
        attributes = {"nonResourceAttributes": {"verb": "get", "path": path}}
        review = side.ask("POST", f"{ACCESS}/subjectaccessreviews", {"spec": user | attributes})
        assert review["content"]["status"]["allowed"] is True
        assert ask(path).status == 403


def test_a_bob_without_the_permission_says_so_and_answers_503(
    side: Side, serve: Callable[..., Callable[..., Answer]], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(APIServerClient(impersonate=f"system:serviceaccount:{side.namespace}:nobody")) as client:
        log_missing_permissions(client, [CREATE_ACCESS_REVIEWS], time.monotonic() + 5)
        assert "may not create subjectaccessreviews.authorization.k8s.io" in caplog.text
        assert serve(reviewer=client)("/invoices").status == 503
        assert "the API server forbids us to create subjectaccessreviews.authorization.k8s.io (403)" in caplog.text
