"""The inventory's own tests, which know nothing of pods."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.test import Client

from tests.apps.inventory.project import running


@pytest.fixture(scope="module", autouse=True)
def project(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running(version, tmp_path_factory.mktemp("inventory")):
        yield


@pytest.fixture(autouse=True)
def rows() -> Iterator[None]:
    users = get_user_model().objects
    users.create_superuser("ann", password="of ann")
    users.create_user("ben", password="of ben")
    yield
    users.all().delete()
    apps.get_model("auth", "Group").objects.all().delete()


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_superuser_adds_a_group_in_the_admin(client: Client) -> None:
    assert client.get("/admin/").url == "/admin/login/?next=/admin/"
    assert client.post("/admin/login/", {"username": "ann", "password": "of ann"}).status_code == 302
    assert client.post("/admin/auth/group/add/", {"name": "tea"}).status_code == 302
    assert b"tea" in client.get("/admin/auth/group/").content


def test_others_do_not_see_the_admin(client: Client) -> None:
    client.login(username="ben", password="of ben")
    assert client.get("/").content == b"Hello, ben"
    assert client.get("/admin/auth/group/").status_code == 302


def test_a_session_uses_the_api(client: Client) -> None:
    client.login(username="ben", password="of ben")
    assert client.post("/api/groups/", {"name": "tea"}).status_code == 201
    assert [group["name"] for group in client.get("/api/groups/").json()] == ["tea"]


def test_a_password_uses_the_api(client: Client) -> None:
    basic = {"Authorization": "Basic " + b64encode(b"ben:of ben").decode()}
    assert client.get("/api/groups/", headers=basic).status_code == 200
    assert client.get("/api/groups/", headers={"Authorization": "Basic eDp5"}).status_code == 401


def test_without_either_there_is_nothing(client: Client) -> None:
    assert client.get("/api/groups/").status_code == 401
    assert client.get("/").url == "/admin/login/?next=/"
