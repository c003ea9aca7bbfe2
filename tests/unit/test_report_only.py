"""`enforce=False`: every request reaches the app, and those that would be denied are logged and counted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

import podproof
from podproof import PodIdentity, Rule
from podproof._request.setup import build_pipeline
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NotAllowed, Unavailable
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, Clock, FakeAPI, review, token
from tests.support.middleware_client import MiddlewareClient

WAYS_TO_BE_DENIED: dict[str, dict[str, Any]] = {
    "no-credential": {"headers": {"Authorization": ""}},
    "malformed-credential": {"headers": {"Authorization": "Bearer a b"}},
    "malformed-token": {"headers": {"Authorization": "Bearer junk"}},
    "wrong-audience": {"headers": {"Authorization": f"Bearer {token(aud='carol')}"}},
    "expired": {"headers": {"Authorization": f"Bearer {token(exp=NOW - 3600)}"}},
    "wrong-address": {"peer": "10.9.9.9"},
    "peer-unknown": {"headers": {"X-Forwarded-For": PEER}},
}


@pytest.mark.parametrize("code", WAYS_TO_BE_DENIED)
def test_a_request_that_would_be_denied_reaches_the_app_without_an_identity(
    make_client: Callable[..., MiddlewareClient], caplog: pytest.LogCaptureFixture, code: str
) -> None:
    caplog.set_level(logging.INFO, "podproof.audit")
    callers: list[PodIdentity | None] = []
    client = make_client(lambda: callers.append(podproof.current_caller()), enforce=False)
    before = count("would-deny", code)
    response = client("/orders", **WAYS_TO_BE_DENIED[code])
    assert (response.status, response.body, callers) == (200, b"ok", [None])
    (record,) = caplog.records
    assert [vars(record)[name] for name in ("decision", "code", "status", "path")] == [
        "would-deny",
        code,
        200,
        "/orders",
    ]
    assert record.getMessage().startswith(f"would deny: {code}: ")
    assert count("would-deny", code) == before + 1


def count(decision: str, code: str) -> float:
    return REGISTRY.get_sample_value("podproof_decisions_total", {"decision": decision, "code": code}) or 0


@pytest.mark.parametrize("failure", [Unavailable("away"), review(authenticated=False)])
def test_what_the_api_server_denies_or_cannot_say_reaches_the_app(
    make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI, failure: Any
) -> None:
    fake_api.review = failure
    assert make_client(enforce=False)().status == 200


@pytest.mark.parametrize("options", [{"allow": ["batch/*"]}, {"rules": [Rule("/*", allow=["batch/*"])]}])
def test_a_caller_that_is_not_allowed_has_its_identity(
    make_client: Callable[..., MiddlewareClient], caplog: pytest.LogCaptureFixture, options: dict[str, object]
) -> None:
    callers: list[PodIdentity | None] = []
    client = make_client(lambda: callers.append(podproof.current_caller()), enforce=False, **options)
    assert [client().status, client().status] == [200, 200]
    assert [caller and caller.display_name for caller in callers] == ["default/alice"] * 2
    assert [vars(record)["code"] for record in caplog.records] == ["not-allowed"] * 2
    assert [vars(record)["pod_uid"] for record in caplog.records] == ["pod-uid"] * 2


@pytest.mark.parametrize("options", [{}, {"allow": ["default/*"]}, {"exempt": ["/"]}, {"optional": True}])
def test_a_request_that_would_be_allowed_is_logged_as_allowed(
    make_client: Callable[..., MiddlewareClient], caplog: pytest.LogCaptureFixture, options: dict[str, object]
) -> None:
    caplog.set_level(logging.INFO, "podproof.audit")
    client = make_client(enforce=False, **options)
    headers = {"Authorization": ""} if "optional" in options or "exempt" in options else {}
    assert [client(headers=headers).status, client(headers=headers).status] == [200, 200]
    assert [vars(record)["decision"] for record in caplog.records] == ["allowed"] * 2


def test_a_part_that_requires_a_caller_still_denies(
    make_client: Callable[..., MiddlewareClient], caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(lambda: podproof.require("default/alice").check(), enforce=False)
    assert client(headers={"Authorization": ""}).status == 401
    assert [vars(record)["decision"] for record in caplog.records] == ["denied"]


@pytest.mark.parametrize(("authorization", "kept"), [(f"Bearer {token()}", False), ("Bearer a-shared-secret", True)])
def test_the_header_stays_on_what_would_be_denied_and_a_websocket_opens(
    make_authenticator: AuthenticatorFactory, authorization: str, kept: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        names.append(b"authorization" in dict(scope["headers"]))
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    names: list[bool] = []
    served = PodAuthMiddleware(app, authenticator=make_authenticator(enforce=False))
    with TestClient(served, client=(PEER, 4711)).websocket_connect("/", headers={"Authorization": authorization}):
        pass
    assert names == [kept]


def test_a_connection_does_not_end_with_the_token(make_authenticator: AuthenticatorFactory, time: Clock) -> None:
    authenticator = make_authenticator(enforce=False)
    future = authenticator.start(token(exp=NOW + 5), PEER)
    assert authenticator.check_peer(future.result(5), PEER).ends_at == float("inf")


class Stub:
    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        account, pod = podproof.ServiceAccount("default", "alice"), podproof.Pod("default", "alice-pod", "uid")
        return PodIdentity(account, pod, audience="bob", expires_at=2e9)


@pytest.mark.parametrize("enforce", [True, False])
def test_the_allow_list_is_checked_after_an_authenticator_of_the_users_own(enforce: bool) -> None:
    arguments: Any = {"authenticator": Stub(), "audience": "bob", "allow": ["batch/*"], "enforce": enforce}
    pipeline = build_pipeline(arguments, environ={})
    future = pipeline._authenticator.start("token", PEER, 0.0, b"")
    assert isinstance(future.result(5), NotAllowed) is enforce


def test_it_is_a_warning_at_start(caplog: pytest.LogCaptureFixture) -> None:
    build_pipeline({"audience": "bob", "enforce": False}, environ={})
    assert "enforce is off: every request reaches the app" in caplog.text
