"""Parts of the guard that a client reaches only by chance."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from podproof import TokenClient, TokenUnavailable
from podproof._request.flow import Allowed
from podproof._telemetry import traces
from podproof.grpc import _async_handlers, _blocking_handlers
from podproof.grpc._call import Call, make_call, read_call
from podproof.grpc._credentials import Attempts
from tests.support.fake_api import AuthenticatorFactory, token


class Fake:
    """Stands in for a context, a span, a pipeline and a client's details."""

    metadata: Any = None
    timeout = None
    keep_authorization = False
    caller: Any = None

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def note(*given: Any) -> bool:
            self.seen.append((name, *given))
            return True

        return note


def test_requests_that_the_token_s_end_has_cut_off_do_not_end_as_if_complete() -> None:
    context: Any = Fake()
    end: Any = Fake()
    end.has_come = True
    assert list(_blocking_handlers._read_stream(iter([b"1"]), context, end)) == [b"1"]
    assert context.seen[0][0] == "abort"


def test_a_call_that_its_client_has_left_is_not_aborted() -> None:
    async def run() -> Any:
        call = Call()
        context: Any = Fake()
        call.given, call.ends_at = context, 1000.0
        pipeline: Any = Fake()
        pipeline.monotonic = lambda: 0.0
        end: Any = _async_handlers._TokenEnd(pipeline, call)
        end._task = None
        end._end()
        await end.cancel()
        cancelled = asyncio.create_task(asyncio.sleep(10))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        _async_handlers._retrieve(cancelled)
        return context.seen

    assert asyncio.run(run()) == []


NAMES = frozenset({"authorization"})


def test_the_caller_is_set_on_a_span_that_records(
    make_authenticator: AuthenticatorFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = make_authenticator(source_address="off")
    authenticator.authenticate(token(), None)
    cached = authenticator.get_cached(token(), None)
    span: Any = Fake()
    monkeypatch.setattr(traces, "get_current_span", lambda: span)
    pipeline: Any = Fake()
    make_call(pipeline, Fake(), ("/a/b", (), "", False, NAMES), Allowed(cached, None, pipeline)).end(None)
    assert [name for name, *_ in span.seen] == ["is_recording", "set_attributes"]


def test_no_more_of_the_metadata_is_read_than_shows_that_it_is_too_much() -> None:
    many = tuple(("authorization", "x") for _ in range(900))
    assert len(read_call(("/a/b", many, "", False, NAMES)).authorization) < 100
    assert read_call(("/a/b", many * 2, "", False, NAMES)).overlong


def test_a_call_is_not_repeated_if_no_token_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = Fake()
    monkeypatch.setattr(client, "headers", lambda _: {"Authorization": "Bearer x"}, raising=False)
    attempts = Attempts(client, Fake())

    def unavailable(_: object) -> TokenClient:
        raise TokenUnavailable("gone", "")

    client.headers = unavailable
    assert attempts.again(grpc.StatusCode.UNAUTHENTICATED) is None
