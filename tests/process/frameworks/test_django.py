from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from podproof import asgi as podproof_asgi
from podproof import wsgi as podproof_wsgi
from podproof._request.require import require
from tests.process.frameworks import django_project
from tests.process.frameworks.framework_clients import ALICE, asgi_client, wsgi_get
from tests.support.fake_api import AuthenticatorFactory

CALLER_MIDDLEWARE = "podproof.django.CallerMiddleware"
REMOTE_USER = [
    CALLER_MIDDLEWARE,
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
]
ADMIN_USERNAME = "system:serviceaccount:default:admin"
ALICE_USERNAME = "system:serviceaccount:default:alice"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.caller and f"{request.caller.service_account} in {request.caller.pod}")


async def whoami_async(request: HttpRequest) -> HttpResponse:
    return whoami(request)


def for_batch(_: HttpRequest) -> HttpResponse:
    require("batch/*").check()
    raise AssertionError


def broken(_: HttpRequest) -> HttpResponse:
    raise ValueError


def user(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username())


async def user_async(request: HttpRequest) -> HttpResponse:
    return user(request)


urlpatterns = [
    path("", whoami),
    path("async", whoami_async),
    path("batch", for_batch),
    path("broken", broken),
    path("user", user),
    path("user/async", user_async),
]


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(ROOT_URLCONF=__name__):
        yield


Get = Callable[..., tuple[int, str]]


@pytest.fixture(params=["wsgi", "asgi"])
def get(request: pytest.FixtureRequest, make_authenticator: AuthenticatorFactory) -> Get:
    """Return a function that sends a GET request to the project, behind one of the middlewares or none."""

    def get_response(
        path: str,
        *,
        anonymous: bool = False,
        wrapped: bool = True,
        headers: Mapping[str, str] = NO_HEADERS,
        **options: Any,
    ) -> tuple[int, str]:
        if request.param == "wsgi":
            app = get_wsgi_application()
            wsgi = podproof_wsgi.PodAuthMiddleware(app, authenticator=make_authenticator(**options)) if wrapped else app
            return wsgi_get(wsgi, path, anonymous=anonymous, **headers)
        app = get_asgi_application()
        asgi = podproof_asgi.PodAuthMiddleware(app, authenticator=make_authenticator(**options)) if wrapped else app
        response = asgi_client(asgi, anonymous=anonymous).get(path, headers=headers)
        return response.status_code, response.text

    return get_response


@pytest.mark.parametrize("path", ["/", "/async"])
def test_a_view_gets_its_caller(get: Get, path: str) -> None:
    assert get(path) == (200, ALICE)


def test_an_anonymous_request_has_no_caller(get: Get) -> None:
    assert get("/", anonymous=True, optional=True) == (200, "None")


def test_a_view_that_denies_gets_the_response_of_the_middleware(get: Get) -> None:
    status, problem = get("/batch")
    assert status == 403
    assert "The caller is not allowed here." in problem


def test_any_other_exception_is_left_alone(get: Get, caplog: pytest.LogCaptureFixture) -> None:
    assert get("/broken")[0] == 500
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_a_request_that_did_not_pass_through_the_middleware_is_an_error(get: Get) -> None:
    assert get("/", wrapped=False)[0] == 500


@pytest.fixture
def users() -> Iterator[None]:
    call_command("migrate", verbosity=0)
    with override_settings(MIDDLEWARE=REMOTE_USER):
        yield


@pytest.mark.trap(40)
@pytest.mark.parametrize("path", ["/user", "/user/async"])
@pytest.mark.usefixtures("users")
def test_the_remote_user_of_django_is_the_caller_whatever_the_header_says(get: Get, path: str) -> None:
    forged = {"Remote-User": ADMIN_USERNAME}
    assert get(path, headers=forged) == (200, ALICE_USERNAME)
    assert get(path, headers=forged, anonymous=True, optional=True) == (200, "")
