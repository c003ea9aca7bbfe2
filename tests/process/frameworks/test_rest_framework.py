"""`podproof.rest_framework`: the authentication and the permission class, with and without the middleware."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client, override_settings

from tests.process.frameworks import django_project
from tests.process.frameworks.framework_clients import AUTHORIZATION
from tests.support.fake_api import PEER, AuthenticatorFactory, FakeAPI

USERNAME = "system:serviceaccount:default:alice"
BACKEND = "django.contrib.auth.backends.ModelBackend"
PEOPLE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(
        ROOT_URLCONF="tests.process.frameworks.rest_views", MIDDLEWARE=PEOPLE, AUTHENTICATION_BACKENDS=[BACKEND]
    ):
        call_command("migrate", verbosity=0)
        yield


@pytest.fixture
def set_options(make_authenticator: AuthenticatorFactory) -> Iterator[Callable[..., None]]:
    """Return what sets the options of the project."""
    made: list[Any] = []

    def set_options(**options: object) -> None:
        made.append(override_settings(PODPROOF={"authenticator": make_authenticator(**options)}))
        made[-1].enable()

    yield set_options
    for one in reversed(made):
        one.disable()


@pytest.fixture
def client() -> Client:
    return Client(REMOTE_ADDR=PEER)


def test_an_authenticated_pod_is_the_user(set_options: Callable[..., None], client: Client) -> None:
    set_options()
    for path in ("/users", "/open", "/pods", "/alice"):
        response = client.get(path, headers=AUTHORIZATION)
        assert (response.status_code, response.json()) == (200, [USERNAME, "default/alice-pod", None])
    assert client.post("/users", headers=AUTHORIZATION).status_code == 200


def test_behind_the_middleware_it_is_the_caller_of_that(
    set_options: Callable[..., None], client: Client, fake_api: FakeAPI
) -> None:
    set_options()
    with override_settings(MIDDLEWARE=["podproof.django.PodAuthMiddleware", *PEOPLE]):
        response = client.get("/users", headers=AUTHORIZATION)
        assert response.json() == [USERNAME, "default/alice-pod", "default/alice-pod"]
        denied = client.get("/batch", headers=AUTHORIZATION)
    assert (denied.status_code, denied.json()) == (403, {"detail": "The caller is not allowed here."})
    assert fake_api.reviews == 1


@pytest.mark.parametrize("path", ["/users", "/open"])
def test_a_denial_has_the_status_and_the_problem_of_the_middleware(
    set_options: Callable[..., None], client: Client, fake_api: FakeAPI, path: str
) -> None:
    set_options()
    response = client.get(path)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    assert {**response.json(), "request_id": ""} == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "A bearer token is needed.",
        "request_id": "",
    }
    fake_api.review = OSError()
    unavailable = client.get(path, headers=AUTHORIZATION)
    assert (unavailable.status_code, unavailable.headers["Retry-After"]) == (503, "1")


def test_people_keep_their_sessions_where_no_token_is_sent(set_options: Callable[..., None], client: Client) -> None:
    set_options(optional=True)
    assert client.get("/open").json() == ["", None, None]
    anonymous = client.get("/users")
    assert (anonymous.status_code, anonymous.headers["WWW-Authenticate"]) == (401, 'Bearer realm="bob"')
    users = get_user_model().objects
    client.force_login(users.filter(username="bea").first() or users.create_superuser("bea"), BACKEND)
    assert client.get("/users").json() == ["bea", None, None]
    assert client.get("/users", headers=AUTHORIZATION).json()[0] == USERNAME
    assert client.get("/users", headers={"Authorization": "Bearer x"}).status_code == 401
    assert client.get("/pods").status_code == 403
    assert client.get("/batch-or-admins").status_code == 200


def test_other_credentials_are_for_the_classes_behind_where_they_pass(
    set_options: Callable[..., None], client: Client
) -> None:
    set_options(other_credentials="pass")
    other = {"Authorization": "Token x"}
    assert client.get("/users", headers=other).status_code == 401
    users = get_user_model().objects
    client.force_login(users.filter(username="bea").first() or users.create_superuser("bea"), BACKEND)
    assert client.get("/users", headers=other).json() == ["bea", None, None]
    assert client.get("/pods", headers=other).status_code == 403
    assert client.get("/users", headers=AUTHORIZATION).json()[0] == USERNAME


def test_a_permission_is_for_the_service_accounts_that_it_names(
    set_options: Callable[..., None], client: Client
) -> None:
    set_options()
    assert client.get("/alice", headers=AUTHORIZATION).status_code == 200
    assert client.get("/batch-or-admins", headers=AUTHORIZATION).status_code == 403
    denied = client.get("/batch", headers=AUTHORIZATION)
    assert (denied.status_code, json.loads(denied.content)) == (403, {"detail": "The caller is not allowed here."})


def test_each_decision_is_one_record(
    set_options: Callable[..., None], client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    set_options()
    with caplog.at_level("INFO", "podproof.audit"):
        client.get("/users", headers=AUTHORIZATION)
        client.get("/users")
        with override_settings(MIDDLEWARE=["podproof.django.PodAuthMiddleware", *PEOPLE]):
            Client(REMOTE_ADDR=PEER).get("/batch", headers=AUTHORIZATION)  # a client loads the middleware once
    records = [vars(record) for record in caplog.records if record.name == "podproof.audit"]
    assert [(record["decision"], record["status"]) for record in records] == [
        ("allowed", None),
        ("denied", 401),
        ("denied", 403),
    ]
