"""Headers that some server or middleware turns into an address, through both middlewares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest

from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.errors import MalformedCredential
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware
from tests.support.fake_api import PEER, AuthenticatorFactory, token

# Written out a second time, so that a header cannot be lost from the list unnoticed.
NAMES = [
    *("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Real-Ip"),
    *("True-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "CF-Pseudo-IPv4"),
    *("X-Client-IP", "Client-IP", "Fastly-Client-IP", "X-Cluster-Client-IP"),
    *("X-Envoy-External-Address", "Fly-Client-IP", "DO-Connecting-IP", "X-Appengine-User-IP"),
    *("X-Azure-ClientIP", "X-Azure-SocketIP", "X-Original-Forwarded-For", "Forwarded-For"),
    *("X-Forwarded", "Remote-Addr", "X-Remote-Addr", "X-Remote-IP"),
    *("X-Originating-IP", "Proxy-Client-IP", "WL-Proxy-Client-IP", "CloudFront-Viewer-Address"),
    *("X-Vercel-Forwarded-For", "Incap-Client-IP", "X-Sucuri-ClientIP", "Ali-CDN-Real-IP"),
    *("CDN-Src-IP", "X-NF-Client-Connection-IP"),
]
VALUES = [PEER, f"::ffff:{PEER}", f"192.0.2.1, {PEER}", f"{PEER}:4711"]
ELSEWHERE = "10.9.0.1"

Headers = Sequence[tuple[str, str]]
Send = Callable[[Headers, str], int]


async def receive() -> dict[str, Any]:
    return {"type": "http.request"}


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


def send_asgi(middleware: Any, headers: Headers, peer: str) -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": raw, "client": (peer, 4711)}
    anyio.run(middleware, scope, receive, send)
    return int(sent[0]["status"])


def send_wsgi(middleware: Any, headers: Headers, peer: str) -> int:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": peer}
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    statuses: list[str] = []
    middleware(environ, lambda status, _: statuses.append(status))
    return int(statuses[0][:3])


@pytest.fixture(params=["asgi", "wsgi"])
def make(request: pytest.FixtureRequest, make_authenticator: AuthenticatorFactory) -> Callable[..., Send]:
    def make(**options: Any) -> Send:
        authenticator = make_authenticator(**options)
        if request.param == "asgi":
            asgi = ASGIMiddleware(asgi_app, authenticator=authenticator)
            return lambda headers, peer: send_asgi(asgi, headers, peer)
        wsgi = WSGIMiddleware(wsgi_app, authenticator=authenticator)
        return lambda headers, peer: send_wsgi(wsgi, headers, peer)

    return make


CREDENTIAL = ("Authorization", f"Bearer {token()}")


@pytest.mark.trap(53)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_an_address_that_may_come_from_a_header_is_denied(
    make: Callable[..., Send], name: str, *, known: bool, before: bool
) -> None:
    send = make()
    if known:
        assert send([CREDENTIAL], PEER) == 200
    for value in VALUES:
        header = (name, f"for={value}" if name == "Forwarded" and "," not in value else value)
        assert send([header, CREDENTIAL] if before else [CREDENTIAL, header], PEER) == 403
    assert send([CREDENTIAL, (name, "192.0.2.1")], PEER) == 200
    assert send([CREDENTIAL], PEER) == 200


@pytest.mark.trap(22, 53)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("X-Forwarded-For", "Forwarded")])
def test_no_other_header_names_a_caller_behind_a_trusted_proxy(make: Callable[..., Send], name: str) -> None:
    send = make(trusted_proxies=[ELSEWHERE])
    assert send([CREDENTIAL, (name, PEER)], ELSEWHERE) == 403
    assert send([CREDENTIAL, (name, PEER), ("X-Forwarded-For", "10.0.0.9")], ELSEWHERE) == 403
    assert send([CREDENTIAL, (name, "10.0.0.9"), ("X-Forwarded-For", PEER)], ELSEWHERE) == 200


@pytest.mark.trap(54)
@pytest.mark.parametrize(("forwarded", "status"), [(f"for={PEER};proto-version=", 200), ("for=10.0.0.9", 403)])
def test_both_headers_are_accepted_where_they_agree(make: Callable[..., Send], forwarded: str, status: int) -> None:
    send = make(trusted_proxies=[ELSEWHERE])
    headers = [CREDENTIAL, ("X-Forwarded-For", PEER), ("Forwarded", forwarded)]
    assert send(headers, ELSEWHERE) == status


CHUNKED = ("Transfer-Encoding", "chunked")
XFF = ("X-Forwarded-For", PEER)
TRAILERS: list[tuple[Headers, int]] = [
    ([CHUNKED, XFF], 200),
    ([CHUNKED, ("X-Forwarded-For", "10.0.0.9"), XFF], 403),
    ([CHUNKED, ("Forwarded", "for=10.0.0.9"), ("Forwarded", f"for={PEER}")], 403),
    ([("X-Forwarded-For", "10.0.0.9"), XFF], 200),
    ([CHUNKED, ("Trailer", "Expires, x-forwarded-for"), XFF], 403),
    ([CHUNKED, ("Trailer", "Authorization"), XFF], 403),
    ([CHUNKED, ("Trailer", "Expires"), ("Trailer", "X-Real-Ip"), XFF], 403),
    ([CHUNKED, ("Trailer", "x" * 5000), XFF], 403),
    ([CHUNKED, ("Trailer", "Expires, \xe9"), XFF], 200),
    ([("Trailer", "X-Forwarded-For"), XFF], 200),
]


@pytest.mark.trap(68)
@pytest.mark.parametrize(("headers", "status"), TRAILERS)
def test_what_may_be_a_trailer_is_denied_behind_a_proxy(
    make_authenticator: AuthenticatorFactory, headers: Headers, status: int
) -> None:
    proxied = ASGIMiddleware(asgi_app, authenticator=make_authenticator(trusted_proxies=[ELSEWHERE]))
    assert send_asgi(proxied, [CREDENTIAL, *headers], ELSEWHERE) == status


@pytest.mark.trap(57)
@pytest.mark.parametrize(("options", "path_status"), [({}, 400), ({"optional": True}, 400)])
def test_too_many_header_lines_are_denied(
    make_authenticator: AuthenticatorFactory, options: dict[str, Any], path_status: int
) -> None:
    app = ASGIMiddleware(asgi_app, authenticator=make_authenticator(**options))
    few, many = [("X-Any", "")] * 999, [("X-Any", "")] * 1000
    assert send_asgi(app, [*few, CREDENTIAL], PEER) == 200
    assert send_asgi(app, [*many, CREDENTIAL], PEER) == path_status == MalformedCredential.status


@pytest.mark.trap(56)
@pytest.mark.parametrize("trusted", ["10.1.0.0/16", f"{PEER}/32"])
def test_a_trusted_network_with_a_callers_pod_in_it_is_warned_of_once(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture, trusted: str
) -> None:
    authenticator = make_authenticator(trusted_proxies=[trusted])
    for number in range(3):
        authenticator.authenticate(token(jti=str(number)), PEER)
    warnings = [record.getMessage() for record in caplog.records if "trusted_proxies contains" in record.getMessage()]
    assert len(warnings) == 1
    assert f"{PEER}, an address of pod default/alice-pod" in warnings[0]


@pytest.mark.trap(56)
def test_a_trusted_network_without_a_callers_pod_is_not_warned_of(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture
) -> None:
    make_authenticator(trusted_proxies=["10.9.0.0/16"]).authenticate(token(), PEER)
    assert caplog.records == []
