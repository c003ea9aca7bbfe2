"""`podproof.django.PodAuthMiddleware`: in `MIDDLEWARE`, in the place of the one around the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required, permission_required
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from podproof import Rule, current_caller
from podproof.django import PodUser, require
from podproof.errors import ConfigurationError, IdentityEnded, NotAllowed
from podproof.identity import Pod, PodIdentity, ServiceAccount
from tests.process.frameworks import django_project
from tests.process.frameworks.framework_clients import AUTHORIZATION
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, token

USERNAME = "system:serviceaccount:default:alice"
BACKEND = "django.contrib.auth.backends.ModelBackend"
PEOPLE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
PEOPLE_SETTINGS = {"LOGIN_URL": "/login", "AUTHENTICATION_BACKENDS": [BACKEND]}
MIDDLEWARE = "podproof.django.PodAuthMiddleware"


def whoami(request: HttpRequest) -> HttpResponse:
    assert request.caller == current_caller()
    assert "Authorization" not in request.headers
    return JsonResponse(
        [request.user.get_username(), str(request.user), request.META.get("HTTP_REMOTE_USER")], safe=False
    )


@login_required
def for_all_users(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username())


@login_required
async def for_all_users_async(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    assert user == request.user
    return HttpResponse(user.get_username())


@require("batch/*")
def for_batch(_: HttpRequest) -> HttpResponse:
    raise AssertionError


@require("batch/*")
async def for_batch_async(_: HttpRequest) -> HttpResponse:
    raise AssertionError


def raises_a_denial(_: HttpRequest) -> HttpResponse:
    raise NotAllowed("of the app's own")


@permission_required("auth.add_user", raise_exception=True)
def for_admins(_: HttpRequest) -> HttpResponse:
    return HttpResponse("for admins")


def broken(_: HttpRequest) -> HttpResponse:
    raise ValueError


def stream(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([b"first", b"second"]))


async def stream_async(_: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second"

    return StreamingHttpResponse(chunks())


urlpatterns = [
    path("whoami", whoami),
    path("users", for_all_users),
    path("users/async", for_all_users_async),
    path("batch", for_batch),
    path("batch/async", for_batch_async),
    path("denial", raises_a_denial),
    path("admins", for_admins),
    path("broken", broken),
    path("stream", stream),
    path("stream/async", stream_async),
]

Get = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[MIDDLEWARE, *PEOPLE], **PEOPLE_SETTINGS):
        yield


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Sync:
    """Django's test client as Alice's pod."""

    stream = "/stream"

    def __init__(self, **defaults: Any) -> None:
        self.client = Client(raise_request_exception=False, REMOTE_ADDR=PEER, **defaults)

    def get(self, path: str, *, anonymous: bool = False, **headers: Any) -> tuple[int, bytes, HttpResponseBase]:
        response = self.client.get(path, headers=({} if anonymous else AUTHORIZATION) | _named(headers))
        return response.status_code, b"".join(response), response


class Async(Sync):
    """Django's asynchronous one, which goes through the same views by ASGI."""

    stream = "/stream/async"

    def __init__(self) -> None:
        self.client = AsyncClient(raise_request_exception=False)
        inner = self.client.request
        self.client.request = lambda **request: inner(client=(PEER, 4711), **request)

    def get(self, path: str, *, anonymous: bool = False, **headers: Any) -> tuple[int, bytes, HttpResponseBase]:
        async def get() -> tuple[int, bytes, HttpResponseBase]:
            response = await self.client.get(path, headers=({} if anonymous else AUTHORIZATION) | _named(headers))
            if response.streaming:
                return response.status_code, b"".join([chunk async for chunk in response]), response
            return response.status_code, response.content, response

        return anyio.run(get)


@pytest.fixture(params=[Sync, Async], ids=["wsgi", "asgi"])
def make_client(
    request: pytest.FixtureRequest, make_authenticator: AuthenticatorFactory
) -> Iterator[Callable[..., Sync]]:
    """Return what makes a client of the project, with these options in its settings."""
    with override_settings():

        def make(**options: object) -> Sync:
            settings.PODPROOF = {"authenticator": make_authenticator(**options)}
            client: Sync = request.param()
            return client

        yield make


MakeClient = Callable[..., Sync]


def test_a_view_gets_its_caller_as_its_user_and_no_token(make_client: MakeClient) -> None:
    status, body, _ = make_client().get("/whoami", Remote_User="admin")
    assert (status, body) == (200, f'["{USERNAME}", "default/alice", "{USERNAME}"]'.encode())
    assert current_caller() is None


@pytest.mark.parametrize("path", ["/users", "/users/async"])
def test_login_required_lets_a_pod_in(make_client: MakeClient, path: str) -> None:
    assert make_client().get(path)[:2] == (200, USERNAME.encode())


@pytest.mark.parametrize("path", ["/batch", "/batch/async", "/denial"])
def test_a_view_denies_with_the_middleware_s_response(make_client: MakeClient, path: str) -> None:
    status, body, response = make_client().get(path)
    assert (status, b"The caller is not allowed here." in body) == (403, True)
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="bob", error="insufficient_scope"'


def test_a_request_without_a_credential_is_denied_before_the_urls(make_client: MakeClient) -> None:
    status, _, response = make_client().get("/no-such-path", anonymous=True)
    assert (status, response.headers["Content-Type"]) == (401, "application/problem+json")


def test_a_pod_has_no_permission_of_django(make_client: MakeClient) -> None:
    assert make_client().get("/admins")[0] == 403


def test_people_keep_their_sessions_where_no_token_is_sent(make_client: MakeClient) -> None:
    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    ann = users.filter(username="ann").first() or users.create_superuser("ann")
    client = make_client(optional=True)
    assert client.get("/users", anonymous=True)[0] == 302
    if isinstance(client, Async):
        return  # a session is made through the database, which Django keeps out of event loops
    client.client.force_login(ann, BACKEND)
    assert client.get("/users", anonymous=True)[:2] == (200, b"ann")
    assert client.get("/admins", anonymous=True)[:2] == (200, b"for admins")
    assert client.get("/batch", anonymous=True)[0] == 401
    assert client.get("/users")[:2] == (200, USERNAME.encode())
    assert client.get("/admins")[0] == 403
    assert client.get("/users", anonymous=True, Authorization="Bearer x")[0] == 401


def test_exempt_paths_and_rules_are_about_the_path_that_django_routes(make_client: MakeClient) -> None:
    client = make_client(rules=[Rule("/users", allow=["default/alice"])], exempt=["/stream", "/stream/*"])
    assert [client.get(path)[0] for path in ("/users", "/whoami")] == [200, 403]
    assert client.get(client.stream, anonymous=True)[:2] == (200, b"firstsecond")


def test_each_request_is_one_record_with_the_status_of_its_response(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    with caplog.at_level("INFO", "podproof.audit"):
        for one in ("/whoami", "/batch", "/broken", "/no-such-path", client.stream):
            client.get(one)
        client.get("/whoami", anonymous=True)
    records = [vars(record) for record in caplog.records if record.name == "podproof.audit"]
    assert [(record["decision"], record["status"]) for record in records] == [
        ("allowed", 200),
        ("denied", 403),
        ("allowed", 500),
        ("allowed", 404),
        ("allowed", 200),
        ("denied", 401),
    ]


def test_a_streamed_response_ends_with_the_token(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client()
    assert client.get(client.stream)[1] == b"firstsecond"
    times = iter([NOW, NOW + 10])
    monkeypatch.setattr("podproof._request.in_app.time", SimpleNamespace(monotonic=lambda: next(times)))
    with pytest.raises(IdentityEnded):
        client.get(client.stream, Authorization=f"Bearer {token(exp=NOW + 5)}")


def test_the_token_stays_on_the_request_if_it_is_kept(make_client: MakeClient) -> None:
    client = make_client(keep_authorization=True)
    assert client.get("/whoami")[0] == 500  # of the assertion in the view


def test_a_wrong_option_stops_the_start() -> None:
    with override_settings(PODPROOF={"audience": "bob", "alow": []}), pytest.raises(ConfigurationError, match="alow"):
        get_wsgi_application()


def test_a_user_without_a_row_answers_safely() -> None:
    call_command("migrate", verbosity=0)
    identity = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-1", "1"), "bob", expires_at=NOW)
    user = PodUser(identity)
    assert (user.is_authenticated, user.is_active) == (True, True)
    assert (user.is_anonymous, user.is_staff, user.is_superuser) == (False, False, False)
    assert (user.pk, user.id, user.get_username(), str(user)) == (None, None, USERNAME, "default/alice")
    assert user == PodUser(identity)
    assert len({user, PodUser(identity)}) == 1
    assert user != identity
    assert user.has_perm("auth.add_user", obj=None) is user.has_perms(["auth.add_user"]) is False
    assert user.has_perms([])
    assert not user.has_module_perms("auth")
    assert user.get_all_permissions() == user.get_user_permissions() == user.get_group_permissions(obj=1) == set()
    assert [*user.groups.all(), *user.user_permissions.filter(codename="add_user")] == []

    async def ask() -> list[object]:
        return [
            await user.ahas_perm("auth.add_user"),
            await user.ahas_perms(["auth.add_user"]),
            await user.ahas_module_perms("auth"),
            await user.aget_all_permissions(),
        ]

    assert anyio.run(ask) == [False, False, False, set()]
    with pytest.raises(NotImplementedError):
        user.save()
