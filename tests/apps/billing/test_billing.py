"""The billing's own tests, which know nothing of pods."""

from __future__ import annotations

from types import ModuleType

import pytest
from flask.testing import FlaskClient

SECRET = {"Authorization": "Bearer of the jobs"}


@pytest.fixture
def client(app_module: ModuleType) -> FlaskClient:
    app_module.invoices.clear()
    app_module.app.config.update(TESTING=True, SECRET="of the jobs")
    client: FlaskClient = app_module.app.test_client()
    return client


def test_a_job_puts_invoices_and_exports_them(client: FlaskClient) -> None:
    for number, cents in (("2", 450), ("1", 300)):
        put = client.put(f"/invoices/{number}", json={"cents": cents}, headers=SECRET)
        assert (put.status_code, put.json) == (201, {"number": number, "cents": cents})
    assert client.get("/invoices", headers=SECRET).text == "1;300\n2;450\n"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer of others"}, {"Authorization": "Basic eDp5"}])
def test_without_the_secret_there_is_nothing(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.get("/invoices", headers=headers).status_code == 401
    assert client.put("/invoices/1", json={"cents": 1}, headers=headers).status_code == 401


def test_it_is_healthy(client: FlaskClient) -> None:
    assert client.get("/healthz").text == "ok"
