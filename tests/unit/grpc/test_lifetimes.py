"""How long a call may last: until its caller's token expires, its deadline passes or its client leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from tests.support.fake_api import Clock, FakeAPI, token
from tests.support.grpc_servers import bearer, call, status_of
from tests.unit.grpc.conftest import Serve

ALICE = bearer(token())
NEARLY_ALL = 3600 - 0.1


class Endless:
    """Streams that go on until they are ended; `ended` has what each handler is ended by."""

    def __init__(self) -> None:
        self.ended: SimpleQueue[str] = SimpleQueue()
        self.stop = threading.Event()

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield request
        self.stop.wait(10)

    def stream_unary(self, requests: Iterable[bytes], context: Any) -> bytes:
        try:
            return b"".join(requests)
        except BaseException as error:
            self.ended.put(type(error).__name__)
            raise

    def stream_stream(self, requests: Iterable[bytes], context: Any) -> Iterator[bytes]:
        try:
            yield from requests
        except BaseException as error:
            self.ended.put(type(error).__name__)
            raise


class AsyncEndless:
    def __init__(self) -> None:
        self.ended: SimpleQueue[str] = SimpleQueue()
        self.stop = threading.Event()

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        try:
            await asyncio.sleep(10)
        except BaseException as error:
            self.ended.put(type(error).__name__)
            raise

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            return b"".join([request async for request in requests])
        except BaseException as error:
            self.ended.put(type(error).__name__)
            raise

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request
        except BaseException as error:
            self.ended.put(type(error).__name__)
            raise


def one_and_no_end(stop: threading.Event) -> Iterator[bytes]:
    yield b"one"
    stop.wait(10)


@pytest.mark.parametrize("kind", ["unary_stream", "stream_unary", "stream_stream"])
def test_a_call_ends_when_its_caller_s_token_expires(serve: Serve, flavour: str, kind: str, time: Clock) -> None:
    service: Any = AsyncEndless() if flavour == "aio" else Endless()
    target = serve(service=service)
    time.passes(NEARLY_ALL)
    requests = [b"one"] if kind == "unary_stream" else one_and_no_end(service.stop)
    with pytest.raises(grpc.RpcError) as raised:
        call(target, kind, ALICE, requests=requests)
    service.stop.set()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert raised.value.details() == "The caller's token has expired."
    if flavour == "aio" or kind != "unary_stream":
        assert service.ended.get(timeout=10)


@pytest.mark.parametrize("kind", ["unary_stream", "stream_unary", "stream_stream"])
def test_a_call_that_ends_before_its_token_is_left_alone(serve: Serve, kind: str, time: Clock) -> None:
    target = serve()
    time.passes(NEARLY_ALL)
    assert status_of(target, kind, ALICE) == "OK"


def test_the_response_to_one_request_is_sent_after_the_token_s_end(serve: Serve, time: Clock) -> None:
    target = serve(lambda _: time.passes(10))
    time.passes(NEARLY_ALL)
    assert status_of(target, "unary_unary", ALICE) == "OK"


def test_where_nothing_is_enforced_no_call_is_ended(serve: Serve, flavour: str, time: Clock) -> None:
    target = serve(lambda _: time.passes(10), enforce=False)
    time.passes(NEARLY_ALL)
    assert status_of(target, "stream_stream", ALICE) == "OK"


@pytest.mark.parametrize("flavour", ["aio"], indirect=True)
@pytest.mark.parametrize("raises", [False, True])
def test_a_handler_that_does_not_let_itself_be_cancelled_sends_nothing_more(
    serve: Serve, time: Clock, raises: bool
) -> None:
    sent: SimpleQueue[str] = SimpleQueue()

    class Stubborn:
        async def unary_stream(self, request: bytes, context: Any) -> None:
            await context.write(request)
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                try:
                    await context.write(b"more")
                except Exception as error:
                    sent.put(type(error).__name__)
                    if raises:
                        raise

    target = serve(service=Stubborn())
    time.passes(NEARLY_ALL)
    assert status_of(target, "unary_stream", ALICE) == "UNAUTHENTICATED"
    assert sent.get(timeout=10) in {"AbortError", "UsageError"}


def notice_end(target: str) -> None:
    """Return when the server has read that the call before has ended: it reads what was sent later after that."""
    for _ in range(5):
        assert status_of(target, "unary_unary", []) == "UNAUTHENTICATED"


def test_a_call_waits_for_the_decision_no_longer_than_its_deadline(serve: Serve, fake_api: FakeAPI) -> None:
    release = threading.Event()
    fake_api.before = lambda: release.wait(10)
    reached: list[Any] = []
    target = serve(reached.append)
    assert status_of(target, "unary_unary", ALICE, timeout=0.2) == "DEADLINE_EXCEEDED"
    notice_end(target)
    release.set()
    fake_api.before = lambda: None
    assert status_of(target, "unary_unary", ALICE) == "OK"
    assert len(reached) == 1


def test_a_call_whose_client_leaves_before_the_decision_reaches_no_handler(serve: Serve, fake_api: FakeAPI) -> None:
    asked, release = threading.Event(), threading.Event()

    def before() -> None:
        asked.set()
        release.wait(10)

    fake_api.before = before
    reached: list[Any] = []
    target = serve(reached.append)
    with grpc.insecure_channel(target) as made:
        channel: Any = made
        future = channel.unary_unary("/echo.Echo/unary_unary").future(b"", metadata=tuple(ALICE), timeout=10)
        asked.wait(10)
        future.cancel()
        assert future.code() is grpc.StatusCode.CANCELLED
    notice_end(target)
    release.set()
    assert status_of(target, "unary_unary", ALICE) == "OK"
    assert len(reached) == 1
