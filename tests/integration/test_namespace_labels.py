"""Rules by the labels of real namespaces."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._authorization.rules import Rule
from podproof._request.setup import build_authenticator
from podproof.errors import Unavailable
from podproof.options import Options
from tests.integration.contract import Access, Side
from tests.support.fake_api import PEER
from tests.support.middleware_client import MiddlewareClient


@pytest.fixture(scope="module")
def side(real: Access) -> Iterator[Side]:
    side = Side(real, f"podproof-labels-{secrets.token_hex(3)}", time.sleep, lambda: "", patience=1)
    yield side
    side.ask("DELETE", f"/api/v1/namespaces/{side.namespace}")


@pytest.fixture(scope="module")
def headers(side: Side) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {side.alice('bob')}"}
    side.report("alice", PEER)
    return headers


def label(side: Side, **labels: str) -> None:
    """Add labels to the namespace."""
    kind = {"Content-Type": "application/merge-patch+json"}
    patch = json.dumps({"metadata": {"labels": labels}})
    assert side.ask("PATCH", f"/api/v1/namespaces/{side.namespace}", headers=kind, data=patch)["status"] == 200


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_labels_of_the_caller_s_namespace_decide(side: Side, headers: dict[str, str], kind: str) -> None:
    env = f"env-{kind}"
    options = Options(
        audience=("bob",),
        rules=(Rule("/", allow=["*/*"], namespace_labels={env: "prod"}),),
        cache_ttl=0,
        rejection_ttl=0,
    )
    with closing(build_authenticator(options)) as authenticator:
        client = MiddlewareClient(kind, authenticator, lambda: None)
        assert client("/", headers=headers).status == 403
        for value, status in (("prod", 200), ("test", 403)):
            label(side, **{env: value})
            assert client("/", headers=headers).status == status


@pytest.mark.parametrize("name", ["own", "default"])
def test_since_1_21_a_namespace_has_its_name_as_a_label(
    side: Side, headers: dict[str, str], version: str, name: str
) -> None:
    labels = {"kubernetes.io/metadata.name": side.namespace if name == "own" else name}
    options = Options(audience=("bob",), rules=(Rule("/", allow=["*/*"], namespace_labels=labels),))
    known = tuple(map(int, version.split("."))) >= (1, 21)
    with closing(build_authenticator(options)) as authenticator:
        status = MiddlewareClient("wsgi", authenticator, lambda: None)("/", headers=headers).status
    assert status == (200 if known and name == "own" else 403)


def test_a_namespace_is_read_by_its_name_and_needs_a_permission(side: Side) -> None:
    deadline = time.monotonic() + 10
    with closing(APIServerClient()) as client:
        found = client.read_namespace(side.namespace, deadline)
        assert found is not None
        assert found["metadata"]["name"] == side.namespace
        assert client.read_namespace(f"{side.namespace}-none", deadline) is None
    nobody = f"system:serviceaccount:{side.namespace}:nobody"
    with (
        closing(APIServerClient(impersonate=nobody)) as client,
        pytest.raises(Unavailable, match=r"the API server forbids us to get namespaces \(403\)"),
    ):
        client.read_namespace(side.namespace, deadline)
