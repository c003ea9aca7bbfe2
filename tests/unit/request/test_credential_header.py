"""`header`: the token in another header than Authorization, which stays the app's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from podproof.errors import ConfigurationError
from podproof.options import Options
from tests.support.fake_api import AuthenticatorFactory, token
from tests.support.recording_app import RecordingApp, Seen

NAME = "X-Pod-Authorization"
BEARER = f"Bearer {token()}"
PERSON = ("authorization", "Bearer person")

MakeApp = Callable[..., RecordingApp]


@pytest.fixture(params=["wsgi", "asgi"])
def make_app(request: pytest.FixtureRequest, make_authenticator: AuthenticatorFactory) -> MakeApp:
    def make(**options: object) -> RecordingApp:
        return RecordingApp(request.param, make_authenticator(**{"header": NAME} | options))

    return make


@pytest.mark.parametrize("options", [{}, {"exempt": ["/healthz"]}])
def test_only_that_header_is_read_and_taken_off(make_app: MakeApp, options: dict[str, object]) -> None:
    app = make_app(**options)
    for _ in range(2):  # as a new and as a known caller
        seen = app((NAME, BEARER), PERSON)
        assert str(seen.caller and seen.caller.service_account) == "default/alice"
        assert seen.headers == (PERSON,)


def test_authorization_is_no_credential(make_app: MakeApp) -> None:
    assert make_app()(("authorization", BEARER)) == Seen(401)
    assert make_app(optional=True)(("authorization", BEARER)) == Seen(200, None, (("authorization", BEARER),))


def test_it_can_be_kept(make_app: MakeApp) -> None:
    assert make_app(keep_authorization=True)((NAME, BEARER)).headers == ((NAME.lower(), BEARER),)


@pytest.mark.parametrize("second", [NAME, "X_Pod_Authorization", "x-pod_authorization", "X_POD-AUTHORIZATION"])
def test_two_of_them_are_denied_also_where_servers_fold_names(make_app: MakeApp, second: str) -> None:
    for values in ((BEARER, BEARER), (BEARER, "Bearer x"), ("", BEARER)):
        seen = make_app()((NAME, values[0]), (second, values[1]))
        assert (seen.status, seen.headers) == (400, None)


def test_with_an_underscore_alone_it_is_read_and_taken_off_too(make_app: MakeApp) -> None:
    seen = make_app()(("X_Pod_Authorization", BEARER))
    assert (seen.status, seen.headers) == (200, ())
    assert seen.caller is not None


def test_other_credentials_pass_beside_it(make_app: MakeApp) -> None:
    app = make_app(other_credentials="pass")
    assert app(PERSON) == Seen(200, None, (PERSON,))
    assert app((NAME, f"Bearer {token(exp=1)}"), PERSON) == Seen(401)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "X_Pod_Authorization", "X-Pod-", "-X", "X--Pod", "X Pod", "X-Pod:", "X-Pöd", "1X", "x" * 65),
        *("A-B-C-D-E-F-G", "Host", "cookie", "Connection", "TE", "Transfer-Encoding", "Proxy-Authorization", "DPoP"),
        *(
            "Content-Type",
            "Sec-WebSocket-Protocol",
            "X-Forwarded-For",
            "Forwarded",
            "X-Real-IP",
            "traceparent",
            "X-Pod-Bin",
            "grpc-timeout",
            7,
            None,
        ),
    ],
)
def test_a_name_that_makes_no_sense_is_an_error(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^invalid header .*: expected a header that has no meaning yet"):
        Options(audience=("bob",), header=name)  # type: ignore[arg-type]  # this is what is tested


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X-Pod-Authorization", "Pod-Token", "X-Podproof"])
def test_other_names_are_possible(name: str) -> None:
    assert Options(audience=("bob",), header=f" {name} ").header == name
