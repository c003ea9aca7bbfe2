"""`other_credentials="pass"`: what is not of this cluster reaches the app as it is; what claims to be is judged."""

from __future__ import annotations

import base64
import json
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from podproof import Rule, current_caller, require
from podproof._authentication.claims import MAX_TOKEN
from podproof._request.other_credentials import read_issuers
from podproof.asgi import PodAuthMiddleware
from podproof.errors import Unavailable
from tests.support.fake_api import ALICE, NOW, PEER, AuthenticatorFactory, FakeAPI, review, segment, token
from tests.support.recording_app import RecordingApp, Seen

CLUSTER = str(ALICE["iss"])
OTHER = "https://accounts.example.com"

MakeApp = Callable[..., RecordingApp]


@pytest.fixture(params=["wsgi", "asgi"])
def make_app(request: pytest.FixtureRequest, make_authenticator: AuthenticatorFactory) -> MakeApp:
    def make(**options: object) -> RecordingApp:
        given = {"other_credentials": "pass"} | options
        return RecordingApp(request.param, make_authenticator(**given))

    return make


def jwt(payload: object, header: object = None, signature: bytes = b"signature") -> str:
    """Return a token of these parts: JSON text, bytes, or what is encoded as JSON."""
    parts = [header if header is not None else {"alg": "RS256", "kid": "1"}, payload]
    encoded = [
        part if isinstance(part, bytes) else (part if isinstance(part, str) else json.dumps(part)).encode()
        for part in parts
    ]
    return ".".join(map(segment, [*encoded, signature]))


OIDC = jwt({"iss": OTHER, "sub": "anna", "aud": "bob", "exp": NOW + 60})
SIGNED_OPAQUE = ".".join([segment(b'{"user": 1}'), "aBcDeF", segment(b"signature")])  # as itsdangerous makes them
JWE = ".".join(
    [segment(b'{"alg":"dir","enc":"A256GCM"}'), "", segment(b"iv" * 6), segment(b"\x80" * 40), segment(b"tag" * 5)]
)
PASETO = "v4.public." + segment(b'{"iss":"https://accounts.example.com","sub":"anna"}' + bytes(range(64)))

OTHERS = {
    "basic": "Basic YW5uYTpzZWNyZXQ=",
    "digest": 'Digest username="anna", realm="x", uri="/"',
    "negotiate": "Negotiate YIIZxQYGKwYBBQUCoIIZuTCC",
    "aws": "AWS4-HMAC-SHA256 Credential=A/20261125/eu/s3/aws4_request, SignedHeaders=host, Signature=ab",
    "scheme without more": "Negotiate",
    "opaque": "Bearer sk-live-0123456789abcdef",
    "opaque with padding": "Bearer c2VjcmV0LXNlY3JldA==",
    "opaque with a bar": "Bearer 1|sEcReTsEcReT",
    "opaque with dots": "Bearer ya29.a0AfB_by.C-secret",
    "opaque that begins like an object": f"Bearer {segment(b'{' + bytes(range(40)))}",
    "short": "Bearer x",
    "jwt": f"Bearer {OIDC}",
    "jwt in lower case": f"bearer {OIDC}",
    "jwt of another scheme": f"JWT {OIDC}",
    "jwt without an issuer": f"Bearer {jwt({'sub': 'anna'})}",
    "jwt unsigned": f"Bearer {jwt({'iss': OTHER}, signature=b'')}",
    "jwt of an issuer that begins the same": f"Bearer {jwt({'iss': f'{CLUSTER}.example.com'})}",
    "jwt of an issuer below": f"Bearer {jwt({'iss': f'{CLUSTER}/other'})}",
    "jwt with a pod": f"Bearer {token(iss=OTHER)}",
    "jwt with many objects": f"Bearer {jwt({'iss': OTHER, 'roles': {str(n): {'r': []} for n in range(80)}})}",
    "signed opaque": f"Bearer {SIGNED_OPAQUE}",
    "jwe": f"Bearer {JWE}",
    "paseto": f"Bearer {PASETO}",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_credential_of_another_kind_reaches_the_app_as_it_is(make_app: MakeApp, fake_api: FakeAPI, name: str) -> None:
    lines = (("cookie", "session=1"), ("authorization", OTHERS[name]))
    seen = make_app()(*lines)
    assert (seen.status, seen.caller, dict(seen.headers or ())) == (200, None, dict(lines))
    assert fake_api.reviews == 0


def test_a_request_without_a_credential_reaches_the_app(make_app: MakeApp) -> None:
    assert make_app()(("cookie", "session=1")) == Seen(200, None, (("cookie", "session=1"),))


def test_by_default_all_of_them_are_refused(make_app: MakeApp, fake_api: FakeAPI) -> None:
    fake_api.review = review(authenticated=False)
    app = make_app(other_credentials="refuse")
    assert app() == Seen(401)
    assert {app(("authorization", value)).headers for value in OTHERS.values()} == {None}


def test_a_pod_is_authenticated_and_its_token_taken_off(make_app: MakeApp) -> None:
    app = make_app()
    for _ in range(2):  # as a new and as a known caller
        seen = app(("authorization", f"Bearer {token()}"), ("cookie", "session=1"))
        assert (seen.status, str(seen.caller and seen.caller.service_account)) == (200, "default/alice")
        assert seen.headers == (("cookie", "session=1"),)


def payload(**claims: Any) -> str:
    return json.dumps(ALICE | claims)


def with_issuer(*members: tuple[str, str]) -> str:
    """Return Alice's token with these members, each of a name and a value as JSON text, in the place of her issuer."""
    text = ", ".join(f'"{name}": {value}' for name, value in members)
    return jwt(payload(iss=None).replace('"iss": null', text))


HEAD, PAYLOAD, _ = token().split(".")
OURS, THEIRS = json.dumps(CLUSTER), json.dumps(OTHER)
ESCAPED = '"' + "".join(f"\\u{ord(character):04x}" for character in CLUSTER) + '"'
STANDARD = base64.b64encode(json.dumps(ALICE | {"x": "?>~~?"}).encode()).decode()

CLAIMING = {
    "expired": f"Bearer {token(exp=NOW - 3600)}",
    "of another audience": f"Bearer {token(aud=['carol'])}",
    "with the scheme in another case": f"bEARER {token(exp=1)}",
    "of another scheme": f"Token {token()}",
    "of another scheme, with more": f'Token token="{token()}", nonce="x"',
    "without a pod": f"Bearer {token(**{'kubernetes.io': None})}",
    "of a secret": f"Bearer {jwt({'iss': 'kubernetes/serviceaccount', 'sub': 'system:serviceaccount:default:alice'})}",
    "unsigned": f"Bearer {jwt(payload(), {'alg': 'none'}, b'')}",
    "without a signature": f"Bearer {HEAD}.{PAYLOAD}",
    "the payload alone": f"Bearer {PAYLOAD}",
    "with a part more": f"Bearer {token()}.x",
    "with a header that is no JSON": f"Bearer {segment(b'x' * 20)}.{PAYLOAD}.{segment(b's')}",
    "with a slash at the end": f"Bearer {jwt(payload(iss=CLUSTER + '/'))}",
    "with slashes at the end": f"Bearer {jwt(payload(iss=CLUSTER + '//'))}",
    "in upper case": f"Bearer {jwt(payload(iss=CLUSTER.upper()))}",
    "with blanks": f"Bearer {jwt(payload(iss=' ' + CLUSTER + chr(10)))}",
    "in escapes": f"Bearer {with_issuer(('iss', ESCAPED))}",
    "with an escaped name": f"Bearer {with_issuer((chr(92) + 'u0069ss', OURS))}",
    "with a name in upper case": f"Bearer {with_issuer(('ISS', OURS))}",
    "in both cases": f"Bearer {with_issuer(('iss', THEIRS), ('Iss', OURS))}",
    "twice, ours first": f"Bearer {with_issuer(('iss', OURS), ('iss', THEIRS))}",
    "twice, ours last": f"Bearer {with_issuer(('iss', THEIRS), ('iss', OURS))}",
    "twice, neither ours": f"Bearer {with_issuer(('iss', THEIRS), ('iss', THEIRS))}",
    "in a list": f"Bearer {jwt(payload(iss=[CLUSTER]))}",
    "in a list of another's": f"Bearer {jwt(payload(iss=[OTHER]))}",
    "as an object": f"Bearer {jwt(payload(iss={'url': CLUSTER}))}",
    "as null": f"Bearer {jwt(payload(iss=None))}",
    "as a number": f"Bearer {jwt(payload(iss=7))}",
    "in the header": f"Bearer {jwt({'iss': OTHER}, {'alg': 'RS256', 'iss': CLUSTER})}",
    "in the header of a JWE": f"Bearer {jwt('x', {'alg': 'dir', 'enc': 'A256GCM', 'iss': CLUSTER})}.x.x",
    "after whitespace": f"Bearer {jwt(chr(10) + '  ' + payload())}",
    "in a token that is cut off": f"Bearer {token()[:300]}",
    "in a payload that is cut off": f"Bearer {jwt(payload()[:200])}",
    "in a payload that is cut off before it": f"Bearer {jwt(payload()[:20])}",
    "in a list of objects": f"Bearer {jwt('[' + payload() + ']')}",
    "behind a byte order mark": f"Bearer {jwt(BOM_UTF8 + payload().encode())}",
    "in single quotes": f"Bearer {jwt(payload().replace(chr(34), chr(39)))}",
    "with NaN": f"Bearer {jwt(payload(exp=float('nan')))}",
    "nested too deeply": f"Bearer {jwt(chr(123) + json.dumps('a-long-name') + ': ' + '[' * 5000)}",
    "in base64 with padding": f"Bearer {HEAD}.{PAYLOAD}==.{segment(b's')}",
    "in standard base64": f"Bearer {HEAD}.{STANDARD}.{segment(b's')}",
    "with a character too many": f"Bearer {HEAD}.{PAYLOAD + 'A' * ((1 - len(PAYLOAD)) % 4)}.{segment(b's')}",
    "in quotes": f'Bearer "{token()}"',
    "after a blank": f"Bearer  {token()}",
    "before something else": f"Bearer {token()} x",
    "too long": f"Bearer {token(extra='x' * MAX_TOKEN)}",
    "twice": f"Bearer {token()}, Bearer {token()}",
    "beside another": f"Bearer {OIDC},Bearer {token()}",
    "behind another scheme": f"Basic YTpi, Bearer {token()}",
    "before another scheme": f"Bearer {token()},Basic YTpi",
}

MALFORMED = {
    "empty": "",
    "blank": " ",
    "no token": "Bearer",
    "no token but a blank": "Bearer ",
    "a tab": f"Bearer\t{OIDC}",
    "no scheme": f"({OIDC})",
    "a longer token than is read": f"Bearer {'x' * (MAX_TOKEN + 1)}",
}


@pytest.mark.parametrize("name", [*CLAIMING, *MALFORMED])
def test_whatever_claims_to_be_of_the_cluster_is_judged(make_app: MakeApp, fake_api: FakeAPI, name: str) -> None:
    fake_api.review = review(authenticated=False)
    seen = make_app()(("authorization", (CLAIMING | MALFORMED)[name]))
    assert seen.status in (400, 401)
    assert seen.headers is None


@pytest.mark.parametrize(
    "values",
    [
        (f"Bearer {token()}", f"Bearer {OIDC}"),
        (f"Bearer {OIDC}", f"Bearer {token()}"),
        ("Basic YTpi", f"Bearer {token()}"),
        (f"Bearer {token()}", ""),
        ("", f"Bearer {token()}"),
        (f"Bearer {token()}", "Basic YTpi"),
    ],
)
def test_of_several_credentials_none_is_taken(make_app: MakeApp, values: tuple[str, str]) -> None:
    seen = make_app()(*(("authorization", value) for value in values))
    assert seen.status in (400, 401)
    assert seen.headers is None


def test_lines_of_one_header_are_never_another_s_credential_under_asgi(
    make_authenticator: AuthenticatorFactory,
) -> None:
    app = RecordingApp("asgi", make_authenticator(other_credentials="pass"))
    assert app(("authorization", "Basic YTpi"), ("authorization", "Basic YTpi")) == Seen(400)


def test_rules_deny_those_without_an_identity(make_app: MakeApp) -> None:
    app = make_app(rules=[Rule("/*", allow=["default/*"])])
    assert app(("authorization", f"Bearer {token()}")).status == 200
    assert app() == app(("authorization", OTHERS["jwt"])) == Seen(401)


def test_require_denies_those_without_an_identity(make_authenticator: AuthenticatorFactory) -> None:
    @require("default/*")
    async def pods(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", pods)])
    wrapped = PodAuthMiddleware(app, authenticator=make_authenticator(other_credentials="pass"))
    client = TestClient(wrapped, client=(PEER, 4711))
    assert client.get("/", headers={"Authorization": f"Bearer {token()}"}).status_code == 200
    assert client.get("/", headers={"Authorization": f"Bearer {OIDC}"}).status_code == 401


def test_an_exempt_path_and_the_allow_list_are_as_ever(make_app: MakeApp) -> None:
    app = make_app(exempt=["/healthz"], allow=["payments/*"])
    assert app(("authorization", f"Bearer {token()}"), path="/healthz").status == 200
    assert app(("authorization", f"Bearer {token()}")).status == 403
    assert app(("authorization", OTHERS["jwt"])).status == 200


def test_without_enforcement_nothing_is_refused(make_app: MakeApp) -> None:
    app = make_app(enforce=False)
    for value in (OTHERS["jwt"], CLAIMING["expired"]):
        assert app(("authorization", value)) == Seen(200, None, (("authorization", value),))


def test_configured_issuers_count_instead_of_our_own_token_s(make_app: MakeApp, fake_api: FakeAPI) -> None:
    app = make_app(issuers=["https://one", "https://two/"])
    fake_api.review = review(authenticated=False)
    for issuer, status in (("https://one", 401), ("https://TWO", 401), (CLUSTER, 200)):
        assert app(("authorization", f"Bearer {token(iss=issuer)}")).status == status


def test_without_a_known_issuer_no_token_is_another_s(
    make_app: MakeApp, fake_api: FakeAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: float) -> str:
        raise Unavailable("no token of our own")

    monkeypatch.setattr(fake_api, "issuer", fail)
    app = make_app()
    assert app(("authorization", OTHERS["jwt"])).status == 503
    assert app(("authorization", OTHERS["opaque"])).status == 200
    monkeypatch.undo()
    assert app(("authorization", OTHERS["jwt"])).status == 200


def test_a_request_that_another_middleware_has_judged_is_not_one_without_a_credential(make_app: MakeApp) -> None:
    judged: dict[str, Any] = {"podproof.identity": None}
    assert make_app()(**judged) == Seen(401)


@pytest.mark.parametrize(
    ("options", "headers", "user"),
    [
        ({}, {}, "anna"),
        ({}, {"Authorization": OTHERS["jwt"]}, "anna"),
        ({}, {"Authorization": f"Bearer {token()}"}, "default/alice"),
        ({"other_credentials": "refuse", "optional": True}, {}, ""),
    ],
)
def test_a_user_of_the_app_s_own_authentication_around_us_stays(
    make_authenticator: AuthenticatorFactory, options: dict[str, object], headers: dict[str, str], user: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert current_caller() is scope["podproof.identity"]
        await PlainTextResponse(scope["user"].display_name)(scope, receive, send)

    middleware = PodAuthMiddleware(app, authenticator=make_authenticator(**{"other_credentials": "pass"} | options))

    async def authenticating(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"], scope["auth"] = SimpleUser("anna"), AuthCredentials(["authenticated"])
        await middleware(scope, receive, send)

    assert TestClient(authenticating, client=(PEER, 4711)).get("/", headers=headers).text == user


def test_all_issuers_in_a_header_count() -> None:
    claims = read_issuers([f"Bearer {OIDC} {jwt({'iss': CLUSTER})}"])
    assert claims is not None
    assert claims.issuers == frozenset({OTHER, CLUSTER})
    assert claims.name([CLUSTER])
    assert not claims.name(["https://third"])
