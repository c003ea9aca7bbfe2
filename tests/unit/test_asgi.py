from __future__ import annotations

import asyncio
import json
import logging
import pydoc
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from contextvars import Context, copy_context
from typing import Any

import anyio
import pytest
import trio
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from podproof import current_caller, wsgi
from podproof._request.async_driver import wait_for_future
from podproof._request.context import current_request, deny
from podproof.asgi import PodAuthMiddleware
from podproof.errors import ConfigurationError, IdentityEnded, NotAllowed, Unavailable
from podproof.testing import Cluster
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, Clock, FakeAPI, review, token
from tests.support.modes import REVIEWING, Mode
from tests.support.startup import wait_for_startup_check

SECONDS = 10  # that a test waits at most for another thread
DENIAL: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}

pytestmark = pytest.mark.anyio


def scope_of(kind: str = "http", path: str = "/", **changes: Any) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token()}".encode())],
        "client": (PEER, 4711),
    }
    if kind == "http":
        scope["method"] = "GET"
    return scope | changes


async def call(app: ASGIApp, scope: Scope, received: Sequence[Message] = ()) -> list[Message]:
    """Call an app, which receives these messages, then a disconnect once it has responded; return what it sends."""
    left, sent, responded = [*received], [], anyio.Event()

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await responded.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            responded.set()

    with anyio.fail_after(SECONDS):
        await app(scope, receive, send)
    return sent


def status_of(sent: list[Message]) -> int:
    status: int = sent[0]["status"]
    return status


def headers_of(sent: list[Message]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def body_of(sent: list[Message]) -> Any:
    return json.loads(sent[1]["body"])


def show(connection: HTTPConnection) -> Response:
    current = current_caller()
    return JSONResponse(
        {
            "user": connection.user.display_name,
            "authenticated": connection.user.is_authenticated,
            "scopes": connection.auth.scopes,
            "current": current and str(current.pod),
            "headers": repr(connection.headers),
        }
    )


@requires("serviceaccount:default/alice")
async def for_alice(request: Request) -> Response:
    return show(request)


@requires("namespace:payments")
async def for_payments(request: Request) -> Response:
    return show(request)


@pytest.fixture
def app() -> Starlette:
    async def for_everyone(request: Request) -> Response:
        return show(request)

    routes = [Route("/alice", for_alice), Route("/payments", for_payments)]
    return Starlette(routes=[*routes, Mount("/", Starlette(routes=[Route("/{rest:path}", for_everyone)]))])


@pytest.fixture
def protected_app(app: Starlette, make_authenticator: AuthenticatorFactory) -> ASGIApp:
    return PodAuthMiddleware(app, authenticator=make_authenticator(exempt=["/healthz"]))


async def test_the_app_gets_the_callers_identity(protected_app: ASGIApp) -> None:
    shown = body_of(await call(protected_app, scope_of()))
    assert shown["user"] == "default/alice"
    assert shown["authenticated"] is True
    assert shown["scopes"] == ["authenticated", "namespace:default", "serviceaccount:default/alice"]
    assert shown["current"] == "default/alice-pod"
    assert current_caller() is None


async def test_starlettes_requires_works_with_namespace_and_service_account(protected_app: ASGIApp) -> None:
    assert status_of(await call(protected_app, scope_of(path="/alice"))) == 200
    assert status_of(await call(protected_app, scope_of(path="/payments"))) == 403


async def test_a_cached_caller_is_not_reviewed_again(protected_app: ASGIApp, fake_api: FakeAPI) -> None:
    for _ in range(3):
        assert status_of(await call(protected_app, scope_of())) == 200
    assert fake_api.reviews == 1


async def test_the_lifespan_reaches_the_app(make_authenticator: AuthenticatorFactory) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await call(PodAuthMiddleware(app, authenticator=make_authenticator()), {"type": "lifespan"})
    assert seen == [{"type": "lifespan"}]


@pytest.mark.trap(65)
@pytest.mark.parametrize("kind", ["something-new", "webtransport", "HTTP", ""])
async def test_a_scope_of_unknown_type_does_not_reach_the_app(
    make_authenticator: AuthenticatorFactory, kind: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    with pytest.raises(RuntimeError, match="unknown ASGI scope type"):
        await call(PodAuthMiddleware(app, authenticator=make_authenticator()), {"type": kind})


@pytest.mark.trap(36)
async def test_the_token_is_removed_for_the_app_and_for_outer_middleware(protected_app: ASGIApp) -> None:
    other = (b"x-other", b"value")
    for headers in ([], [], [(b"x-forwarded-for", b"10.9.9.9")]):
        scope = scope_of()
        scope["headers"] += [other, *headers]
        shown = body_of(await call(protected_app, scope))
        assert token() not in shown["headers"]
        assert scope["headers"] == [other, *headers]


async def test_the_header_stays_on_an_exempt_request(protected_app: ASGIApp) -> None:
    assert token() in body_of(await call(protected_app, scope_of(path="/healthz")))["headers"]


async def test_the_token_stays_with_keep_authorization(
    app: Starlette, make_authenticator: AuthenticatorFactory
) -> None:
    protected_app = PodAuthMiddleware(app, authenticator=make_authenticator(keep_authorization=True))
    for _ in range(2):  # an unknown caller, then a cached one
        assert token() in body_of(await call(protected_app, scope_of()))["headers"]


@pytest.mark.trap(39)
@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [
        ([], 401, 'Bearer realm="bob"'),
        ([(b"authorization", b"Bearer a b")], 400, 'Bearer realm="bob", error="invalid_request"'),
        ([(b"authorization", b"Bearer \xff")], 400, 'Bearer realm="bob", error="invalid_request"'),
        ([(b"authorization", b"Bearer junk")], 401, 'Bearer realm="bob", error="invalid_token"'),
    ],
)
async def test_a_denied_request_gets_problem_details(
    protected_app: ASGIApp, headers: Any, status: int, challenge: str
) -> None:
    sent = await call(protected_app, scope_of(headers=headers))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (status_of(sent), headers_of(sent)["www-authenticate"]) == (status, challenge)
    assert headers_of(sent)["content-type"] == "application/problem+json"
    assert headers_of(sent)["content-length"] == str(len(sent[1]["body"]))
    assert body_of(sent)["status"] == status


@pytest.mark.trap(34)
async def test_two_authorization_headers_are_denied(protected_app: ASGIApp) -> None:
    headers = scope_of()["headers"] * 2
    assert status_of(await call(protected_app, scope_of(headers=headers))) == 400


async def test_an_api_server_failure_is_503(protected_app: ASGIApp, fake_api: FakeAPI) -> None:
    fake_api.review = Unavailable("away")
    sent = await call(protected_app, scope_of())
    assert (status_of(sent), headers_of(sent)["retry-after"]) == (503, "1")


@pytest.mark.trap(39)
@pytest.mark.parametrize(
    ("headers", "client", "status"),
    [([], (PEER, 1), 401), (None, ("10.1.2.99", 1), 403), ([(b"authorization", b"")], (PEER, 1), 400)],
)
async def test_a_denied_websocket_gets_the_response_if_the_server_can_send_it_else_a_close(
    protected_app: ASGIApp, headers: Any, client: Any, status: int
) -> None:
    scope = scope_of("websocket", client=client) | ({} if headers is None else {"headers": headers})
    sent = await call(protected_app, {**scope, **DENIAL})
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert status_of(sent) == status
    assert body_of(sent)["status"] == status
    for without in ("extensions", "something-else"):
        assert await call(protected_app, {**scope, without: {}}) == [{"type": "websocket.close", "code": 1008}]


async def test_a_websocket_gets_the_callers_identity(make_authenticator: AuthenticatorFactory) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "caller": str(HTTPConnection(scope).user.pod)})
        assert current_caller() is not None
        await receive()
        await send({"type": "websocket.close"})

    sent = await call(
        PodAuthMiddleware(app, authenticator=make_authenticator()),
        scope_of("websocket"),
        [{"type": "websocket.connect"}],
    )
    assert sent == [{"type": "websocket.accept", "caller": "default/alice-pod"}, {"type": "websocket.close"}]


@pytest.mark.trap(35)
async def test_optional_allows_a_missing_credential_and_denies_a_bad_one(
    app: Starlette, make_authenticator: AuthenticatorFactory
) -> None:
    protected_app = PodAuthMiddleware(app, authenticator=make_authenticator(optional=True))
    shown = body_of(await call(protected_app, scope_of(headers=[])))
    assert (shown["user"], shown["authenticated"], shown["scopes"], shown["current"]) == ("", False, [], None)
    assert status_of(await call(protected_app, scope_of(path="/alice", headers=[]))) == 403
    assert status_of(await call(protected_app, scope_of(headers=[(b"authorization", b"Bearer junk")]))) == 401


@pytest.mark.trap(37)
async def test_no_header_sets_an_identity(app: Starlette, make_authenticator: AuthenticatorFactory) -> None:
    names = [b"user", b"auth", b"podproof.identity", b"podproof-identity", b"remote-user", b"x-remote-user"]
    protected_app = PodAuthMiddleware(app, authenticator=make_authenticator(optional=True))
    shown = body_of(await call(protected_app, scope_of(headers=[(name, b"default/eve") for name in names])))
    assert (shown["user"], shown["authenticated"]) == ("", False)


@pytest.mark.trap(26)
@pytest.mark.parametrize("client", [None, (), ("", 0), ("/run/bob.sock", 1), ("testclient", 50000)])
async def test_a_connection_without_an_address_is_denied(protected_app: ASGIApp, client: object) -> None:
    scope = scope_of(client=client)
    assert status_of(await call(protected_app, scope)) == 403
    del scope["client"]
    assert status_of(await call(protected_app, scope | {"headers": scope_of()["headers"]})) == 403


@pytest.mark.trap(23)
async def test_a_client_address_with_port_0_is_denied(protected_app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    assert status_of(await call(protected_app, scope_of(client=(PEER, 0)))) == 403
    assert "--no-proxy-headers" in caplog.text


@pytest.mark.trap(23)
@pytest.mark.parametrize(
    "header", [(b"x-forwarded-for", f"1.1.1.1, {PEER}:80".encode()), (b"forwarded", f"for={PEER}".encode())]
)
async def test_a_client_address_that_is_also_in_a_forwarded_header_is_denied(
    protected_app: ASGIApp, header: tuple[bytes, bytes]
) -> None:
    scope = scope_of()
    scope["headers"].append(header)
    assert status_of(await call(protected_app, scope)) == 403


@pytest.mark.trap(22)
async def test_all_occurrences_of_a_forwarded_header_count_in_order(
    app: Starlette, make_authenticator: AuthenticatorFactory
) -> None:
    protected_app = PodAuthMiddleware(app, authenticator=make_authenticator(trusted_proxies=["10.9.0.0/16"]))
    for name, values, status in (
        (b"x-forwarded-for", ["10.1.2.99", PEER], 200),
        (b"x-forwarded-for", [PEER, "10.1.2.99"], 403),
        (b"x-forwarded-for", [PEER, "10.9.0.2"], 200),
        (b"forwarded", ["for=10.1.2.99", f"for={PEER}"], 200),
        (b"forwarded", [f"for={PEER}", "for=10.1.2.99"], 403),
        (b"forwarded", [f"for={PEER}", "for=10.9.0.2"], 200),
    ):
        scope = scope_of(client=("10.9.0.1", 1))
        scope["headers"] += [(name, value.encode()) for value in values]
        assert status_of(await call(protected_app, scope)) == status


@pytest.mark.trap(38)
@pytest.mark.parametrize(
    ("path", "raw_path", "root_path", "status"),
    [
        ("/healthz", b"/healthz", "", 200),
        ("/healthz", None, "", 200),
        ("/healthz", b"", "", 200),
        ("/healthz", b"/%68ealthz", "", 401),
        ("//healthz", b"//healthz", "", 401),
        ("/healthz/../admin", b"/healthz/../admin", "", 401),
        ("/healthz/", b"/healthz/", "", 401),
        ("/mount/healthz", b"/mount/healthz", "/mount", 200),
        ("/healthz", b"/healthz", "/mount", 200),
        ("/mounted/healthz", b"/mounted/healthz", "/mount", 401),
        # An app that is mounted at an exempt path: this is its root, and that is not exempt.
        ("/healthz", b"/healthz", "/healthz", 401),
        ("/healthz/healthz", b"/healthz/healthz", "/healthz", 200),
    ],
)
async def test_an_exempt_path_is_compared_as_the_apps_routes_see_it(
    make_authenticator: AuthenticatorFactory, path: str, raw_path: bytes | None, root_path: str, status: int
) -> None:
    protected_app = PodAuthMiddleware(JSONResponse({}), authenticator=make_authenticator(exempt=["/healthz"]))
    for kind, denied in (("http", status), ("websocket", None)):
        scope = scope_of(kind, path=path, raw_path=raw_path, root_path=root_path, headers=[], extensions={})
        if kind == "http":
            assert status_of(await call(protected_app, scope)) == denied
        elif status == 401:
            assert (await call(protected_app, scope))[0]["type"] == "websocket.close"
    del scope["raw_path"], scope["root_path"]
    assert status_of(await call(protected_app, scope | {"type": "http", "method": "GET", "path": "/healthz"})) == 200


async def test_the_raw_path_may_be_missing(make_authenticator: AuthenticatorFactory) -> None:
    protected_app = PodAuthMiddleware(JSONResponse({}), authenticator=make_authenticator(exempt=["/healthz"]))
    scope = scope_of(path="/healthz", headers=[])
    del scope["raw_path"], scope["root_path"]
    assert status_of(await call(protected_app, scope)) == 200


@pytest.mark.trap(27)
@pytest.mark.modes(*REVIEWING)  # by keys nothing is waited for but the keys: test_key_set.py
async def test_concurrent_requests_share_one_review_even_if_the_first_is_cancelled(
    protected_app: ASGIApp, fake_api: FakeAPI
) -> None:
    review_begun, may_respond = threading.Event(), threading.Event()

    def wait() -> None:
        review_begun.set()
        may_respond.wait(SECONDS)

    fake_api.before = wait
    statuses: list[int] = []

    async def request() -> None:
        statuses.append(status_of(await call(protected_app, scope_of())))

    async with anyio.create_task_group() as others:
        async with anyio.create_task_group() as first:
            first.start_soon(request)
            await anyio.to_thread.run_sync(review_begun.wait, SECONDS)
            for _ in range(5):
                others.start_soon(request)
            await anyio.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        may_respond.set()
    assert statuses == [200] * 5
    assert fake_api.reviews == 1


async def test_a_review_does_not_block_the_event_loop(protected_app: ASGIApp, fake_api: FakeAPI) -> None:
    may_respond = threading.Event()
    await call(protected_app, scope_of())
    fake_api.before = lambda: may_respond.wait(SECONDS)
    unknown = scope_of(headers=[(b"authorization", f"Bearer {token(jti='2')}".encode())])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, protected_app, unknown)
        await anyio.wait_all_tasks_blocked()
        assert status_of(await call(protected_app, scope_of())) == 200
        may_respond.set()


async def test_a_request_that_times_out_is_503_and_the_next_one_uses_its_review(
    app: Starlette, make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    may_respond = threading.Event()
    fake_api.before = lambda: may_respond.wait(SECONDS)
    protected_app = PodAuthMiddleware(app, authenticator=make_authenticator(timeout=0.05))
    assert status_of(await call(protected_app, scope_of())) == 503
    may_respond.set()
    make_authenticator.made[0].start(token(), PEER).result(SECONDS)
    assert status_of(await call(protected_app, scope_of())) == 200
    assert fake_api.reviews == 1


@pytest.mark.trap(31)
async def test_a_websocket_is_closed_when_the_token_expires(make_authenticator: AuthenticatorFactory) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()

    scope = scope_of("websocket", headers=[(b"authorization", f"Bearer {token(exp=NOW + 0.05)}".encode())])
    sent = await call(PodAuthMiddleware(app, authenticator=make_authenticator()), scope)
    assert [(message["type"], message.get("code")) for message in sent] == [
        ("websocket.accept", None),
        ("websocket.close", 1008),
    ]


@pytest.mark.trap(31)
@pytest.mark.parametrize("received", [[], [{"type": "websocket.disconnect", "code": 1001}]])
async def test_a_websocket_that_is_closed_already_is_not_closed_again(
    make_authenticator: AuthenticatorFactory, received: list[Message]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if received:
            await receive()
        else:
            await send({"type": "websocket.close", "code": 1000})
        await anyio.sleep_forever()

    scope = scope_of("websocket", headers=[(b"authorization", f"Bearer {token(exp=NOW + 0.05)}".encode())])
    sent = await call(PodAuthMiddleware(app, authenticator=make_authenticator()), scope, received)
    assert [message["code"] for message in sent] == ([] if received else [1000])


@pytest.mark.trap(31)
async def test_a_response_is_broken_off_when_the_token_expires(make_authenticator: AuthenticatorFactory) -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"event\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"event\n", "more_body": True})
        ended.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"event\n", "more_body": True})

    scope = scope_of(headers=[(b"authorization", f"Bearer {token(exp=NOW + 0.05)}".encode())])
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(IdentityEnded):
        await PodAuthMiddleware(app, authenticator=make_authenticator())(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]  # it never returns
    assert ended == ["http.disconnect"]
    assert len(sent) == 3


@pytest.mark.trap(31)
async def test_a_response_that_starts_after_the_token_expired_is_sent_whole(
    make_authenticator: AuthenticatorFactory,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    scope = scope_of(headers=[(b"authorization", f"Bearer {token(exp=NOW + 0.05)}".encode())])
    assert len(await call(PodAuthMiddleware(app, authenticator=make_authenticator()), scope)) == 2


@pytest.mark.trap(62)
async def test_a_response_whose_only_chunk_comes_after_the_tokens_end_is_complete(
    make_authenticator: AuthenticatorFactory,
) -> None:
    body = [b"", b"done", b""]  # as a streaming response, or one that passes through Starlette's BaseHTTPMiddleware

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, chunk in enumerate(body):
            await send({"type": "http.response.body", "body": chunk, "more_body": number + 1 < len(body)})

    scope = scope_of(headers=[(b"authorization", f"Bearer {token(exp=NOW + 0.05)}".encode())])
    sent = await call(PodAuthMiddleware(app, authenticator=make_authenticator()), scope)
    assert [message.get("body") for message in sent[1:]] == body


@pytest.mark.trap(31, 62)
async def test_an_app_is_not_offered_to_have_a_file_sent_by_the_server(
    make_authenticator: AuthenticatorFactory,
) -> None:
    offered: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        offered.append(scope["extensions"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    bob = PodAuthMiddleware(app, authenticator=make_authenticator(optional=True))
    files: dict[str, object] = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
    others: dict[str, object] = {"http.response.trailers": {}, "tls": {"tls_version": 772}}
    for given, expected in ((files | others, others), (files, {}), (others, others), ({}, {})):
        await call(bob, scope_of(extensions=given))
        assert offered.pop() == expected
        await call(bob, scope_of(extensions=given, headers=[]))
        assert offered.pop() == given
    assert set(files) == {"http.response.pathsend", "http.response.zerocopysend"}  # the server's own is left alone


async def test_a_request_body_reaches_the_app(make_authenticator: AuthenticatorFactory) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    received = [{"type": "http.request", "body": b"hello"}]
    assert (await call(PodAuthMiddleware(app, authenticator=make_authenticator()), scope_of(), received))[1][
        "body"
    ] == b"hello"


@pytest.mark.trap(33)
async def test_no_log_line_has_the_token(
    protected_app: ASGIApp, fake_api: FakeAPI, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    fake_api.review = review(error=token(), authenticated=False)
    assert status_of(await call(protected_app, scope_of())) == (503 if mode.verify == "review" else 200)
    assert status_of(await call(protected_app, scope_of(headers=scope_of()["headers"] * 2))) == 400
    assert sum(record.name == "podproof.audit" for record in caplog.records) == 2
    assert token().split(".")[1] not in caplog.text


async def test_a_denial_is_logged_with_peer_method_and_path(
    protected_app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = [(b"traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())]
    await call(protected_app, scope_of(path="/a\xe9", headers=headers))
    assert f"peer={PEER} request=GET '/a%C3%A9' request_id={trace}]" in caplog.messages[-1]
    await call(protected_app, scope_of("websocket", path="/ws", headers=headers, client=None))
    assert f"peer=- request=WEBSOCKET '/ws' request_id={trace}]" in caplog.messages[-1]


def test_a_wrong_option_fails_the_constructor(app: Starlette) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'audience'"):
        PodAuthMiddleware(app, audiences="bob")  # type: ignore[call-arg]  # a wrong option on purpose


@pytest.mark.trap(61)
async def test_a_wrong_option_fails_the_lifespan_if_the_constructor_runs_on_an_event_loop(app: Starlette) -> None:
    app.add_middleware(PodAuthMiddleware, audience="bob", alow=["default/alice"])  # type: ignore[call-arg]  # on purpose
    (failed,) = await call(app, {"type": "lifespan"}, [{"type": "lifespan.startup"}])
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"] == "podproof: unknown option 'alow': did you mean 'allow'?"
    for kind in ("http", "websocket"):
        with pytest.raises(ConfigurationError, match="alow"):
            await call(app, scope_of(kind))


async def test_the_lifespan_starts_the_startup_check(app: Starlette, cluster: Cluster) -> None:
    app.add_middleware(PodAuthMiddleware, audience="bob")
    await call(app, {"type": "lifespan"}, [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    wait_for_startup_check()
    assert cluster.count("selfsubjectaccessreviews") == 2


def test_help_shows_the_options() -> None:
    for middleware in (PodAuthMiddleware, wsgi.PodAuthMiddleware):
        shown = pydoc.plain(pydoc.render_doc(middleware))
        for name in ("audience", "allow", "timeout", "authenticator"):
            assert f"{name}:" in shown or f"{name}=" in shown


def run_and_time_out(run: Callable[[Callable[[], Awaitable[None]]], object], future: Future[Any]) -> None:
    async def time_out() -> None:
        await wait_for_future(future, 0.01)
        assert not future.done()

    run(time_out)


@pytest.mark.parametrize("run", [lambda wait: asyncio.run(wait()), trio.run], ids=["asyncio", "trio"])
def test_a_future_that_is_done_after_the_event_loop_has_ended_is_no_error(
    run: Callable[[Callable[[], Awaitable[None]]], object], caplog: pytest.LogCaptureFixture
) -> None:
    future: Future[Any] = Future()
    run_and_time_out(run, future)
    with caplog.at_level(logging.DEBUG):
        future.set_result(None)
    assert caplog.records == []


@pytest.mark.parametrize("ending", ["returns", "raises"])
async def test_a_context_copy_that_outlives_its_request_has_no_caller(
    make_authenticator: AuthenticatorFactory, ending: str
) -> None:
    contexts: list[Context] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        contexts.append(copy_context())
        assert contexts[0].run(current_caller) is not None
        if ending == "raises":
            raise RuntimeError("the app fails")
        await Response()(scope, receive, send)

    middleware = PodAuthMiddleware(app, authenticator=make_authenticator())
    for kind in ("http", "websocket"):
        contexts.clear()
        with pytest.raises(RuntimeError, match="the app fails") if ending == "raises" else nullcontext():
            await call(middleware, scope_of(kind))
        assert contexts[0].run(current_caller) is None
        with pytest.raises(RuntimeError, match="did not pass through"):
            contexts[0].run(deny, NotAllowed("late"))


@pytest.mark.trap(51)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_context_copied_by_the_server_has_no_request(
    make_authenticator: AuthenticatorFactory, kind: str
) -> None:
    contexts: list[Context] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(
            {"type": "websocket.accept"} if kind == "websocket" else {"type": "http.response.start", "status": 200}
        )
        assert current_caller() is not None

    async def receive() -> Message:
        contexts.append(copy_context())
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        contexts.append(copy_context())

    await PodAuthMiddleware(app, authenticator=make_authenticator())(scope_of(kind), receive, send)
    assert [context[current_request] for context in contexts] == [None, None]


@pytest.mark.trap(31)
async def test_a_request_body_that_arrives_after_the_token_expired_is_discarded(
    make_authenticator: AuthenticatorFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(1000)
    monkeypatch.setattr("podproof._request.lifetime.time.monotonic", clock)
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append((await receive())["type"])

    async def receive() -> Message:
        clock.passes(3600)
        return {"type": "http.request", "body": b"late"}

    async def send(message: Message) -> None:
        raise AssertionError

    await PodAuthMiddleware(app, authenticator=make_authenticator())(scope_of(), receive, send)
    assert received == ["http.disconnect"]


@pytest.mark.trap(64)
@pytest.mark.parametrize("raises", [False, True])
async def test_a_denial_that_a_framework_made_an_error_of_is_the_middlewares_response(
    make_authenticator: AuthenticatorFactory, *, raises: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        error = NotAllowed("secret reason")
        deny(error)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"secret reason"})
        if raises:
            raise error

    sent = await call(PodAuthMiddleware(app, authenticator=make_authenticator()), scope_of())
    assert (status_of(sent), len(sent)) == (403, 2)
    assert b"secret" not in sent[1]["body"]
