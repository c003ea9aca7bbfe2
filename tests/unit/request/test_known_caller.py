"""What a known caller costs, in function calls: the same number on every machine."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware
from tests.support.call_counter import count_calls
from tests.support.fake_api import PEER, AuthenticatorFactory, token

MAX_CALLS = 12


def call_asgi(middleware: ASGIMiddleware) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"small"}

    async def send(_: object) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"host", b"bob"), (b"authorization", f"Bearer {token()}".encode())],
        "client": (PEER, 4711),
    }
    anyio.run(middleware, scope, receive, send)


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def call_wsgi(middleware: WSGIMiddleware) -> None:
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "REMOTE_ADDR": PEER,
        "HTTP_AUTHORIZATION": f"Bearer {token()}",
        "wsgi.input": io.BytesIO(b"small"),
    }
    body = middleware(environ, lambda *_: lambda _: None)
    for chunk in body:
        assert chunk == b"ok"
    body.close()  # type: ignore[attr-defined]  # PEP 3333: where there is one


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"ok"]


@pytest.mark.parametrize(
    ("middleware", "app", "call"),
    [(ASGIMiddleware, asgi_app, call_asgi), (WSGIMiddleware, wsgi_app, call_wsgi)],
    ids=["asgi", "wsgi"],
)
def test_a_known_caller_costs_at_most_12_calls(
    make_authenticator: AuthenticatorFactory, middleware: Any, app: Any, call: Any
) -> None:
    wrapped = middleware(app, authenticator=make_authenticator())
    call(wrapped)
    calls = count_calls(lambda: call(wrapped))
    print(f"\n{calls.total()} calls: {dict(calls)}")
    assert 0 < calls.total() <= MAX_CALLS
    assert calls["authenticator.py:get_known"] == 1
    assert not any(name.startswith("pipeline.py:decide") for name in calls)
