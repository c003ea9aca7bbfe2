"""The orders' own tests, which know nothing of pods."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from starlette.testclient import TestClient

from tests.apps.orders.people import FOREIGN_KEY, provider_of, signed_in, token_of


@pytest.fixture
def client(app_module: ModuleType) -> Iterator[TestClient]:
    app_module.orders.clear()
    with provider_of(app_module):
        yield TestClient(app_module.app)


def test_a_person_places_orders_and_sees_them(client: TestClient) -> None:
    placed = client.post("/orders", json={"item": "tea"}, headers=signed_in("ann"))
    assert (placed.status_code, placed.json()) == (201, {"item": "tea", "placed_by": "ann"})
    assert client.get("/orders", headers=signed_in("ann")).json() == [placed.json()]


def test_nobody_sees_the_orders_of_others(client: TestClient) -> None:
    client.post("/orders", json={"item": "tea"}, headers=signed_in("ann"))
    assert client.get("/orders", headers=signed_in("ben")).json() == []


BAD = {
    "none": "",
    "junk": "junk",
    "expired": token_of("ann", exp=0),
    "for another app": token_of("ann", aud="x"),
    "forged": token_of("ann", FOREIGN_KEY),
}


@pytest.mark.parametrize("token", BAD.values(), ids=[*BAD])
def test_without_a_valid_token_there_is_no_order(client: TestClient, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    assert client.get("/orders", headers=headers).status_code == 401


def test_it_is_healthy(client: TestClient) -> None:
    assert client.get("/healthz").json() == "ok"
