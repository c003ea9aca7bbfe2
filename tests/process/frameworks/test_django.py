from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from podproof import asgi as podproof_asgi
from podproof import wsgi as podproof_wsgi
from podproof._request.require import require
from tests.process.frameworks.requests_sent import KNOWN, asgi, wsgi
from tests.support.fake_api import AuthenticatorFactory

CALLER_MIDDLEWARE = "podproof.django.CallerMiddleware"
REMOTE_USER = [
    CALLER_MIDDLEWARE,
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
]
ADMIN = "system:serviceaccount:default:admin"
ALICE = "system:serviceaccount:default:alice"
NOTHING: Mapping[str, str] = MappingProxyType({})


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
def project(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Django has one project a process: this module's."""
    settings.configure(
        ALLOWED_HOSTS=["*"],
        AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path_factory.mktemp("db") / "db"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        MIDDLEWARE=[CALLER_MIDDLEWARE],
        ROOT_URLCONF=__name__,
        SECRET_KEY="signs this module's sessions only",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        LOGGING_CONFIG=None,
    )
    django.setup()


Ask = Callable[..., tuple[int, str]]


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, make_authenticator: AuthenticatorFactory) -> Ask:
    """Ask the project for a path, behind either middleware or none."""

    def ask_it(
        path: str, *, known: bool = True, wrapped: bool = True, headers: Mapping[str, str] = NOTHING, **options: Any
    ) -> tuple[int, str]:
        if request.param == "wsgi":
            app = get_wsgi_application()
            bob = podproof_wsgi.PodAuthMiddleware(app, authenticator=make_authenticator(**options)) if wrapped else app
            return wsgi(bob, path, known=known, **headers)
        app = get_asgi_application()
        answer = asgi(
            podproof_asgi.PodAuthMiddleware(app, authenticator=make_authenticator(**options)) if wrapped else app,
            known=known,
        ).get(path, headers=headers)
        return answer.status_code, answer.text

    return ask_it


@pytest.mark.parametrize("path", ["/", "/async"])
def test_a_view_knows_its_caller(ask: Ask, path: str) -> None:
    assert ask(path) == (200, KNOWN)


def test_of_an_anonymous_request_nobody_is_the_caller(ask: Ask) -> None:
    assert ask("/", known=False, optional=True) == (200, "None")


def test_a_refusal_in_a_view_is_the_middleware_s_own(ask: Ask) -> None:
    status, problem = ask("/batch")
    assert status == 403
    assert "The caller is not allowed here." in problem


def test_another_exception_stays_what_it_was(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    assert ask("/broken")[0] == 500
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


def test_without_the_middleware_nothing_is_believed(ask: Ask) -> None:
    assert ask("/", wrapped=False)[0] == 500


@pytest.fixture
def users() -> Iterator[None]:
    call_command("migrate", verbosity=0)
    with override_settings(MIDDLEWARE=REMOTE_USER):
        yield


@pytest.mark.trap(40)
@pytest.mark.parametrize("path", ["/user", "/user/async"])
@pytest.mark.usefixtures("users")
def test_django_s_remote_user_is_the_caller_whatever_the_header_says(ask: Ask, path: str) -> None:
    forged = {"Remote-User": ADMIN}
    assert ask(path, headers=forged) == (200, ALICE)
    assert ask(path, headers=forged, known=False, optional=True) == (200, "")
