"""What a call of a known caller costs, in function calls: the same number on every machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import pytest

from podproof.grpc import PodAuthInterceptor
from podproof.grpc.aio import PodAuthInterceptor as AsyncPodAuthInterceptor
from tests.support.call_counter import count_calls
from tests.support.fake_api import AuthenticatorFactory, token

MAX_CALLS = 18
METADATA = (("authorization", f"Bearer {token()}"), ("user-agent", "grpc"), ("x-other", "1"))


class Details(NamedTuple):
    method: str
    invocation_metadata: Any


class Context:
    """What is used of a context of gRPC."""

    def invocation_metadata(self) -> Any:
        return METADATA

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4711"

    def code(self) -> None:
        return None

    def time_remaining(self) -> float:
        return 10


class AsyncContext(Context):
    async def read(self) -> bytes:
        return b"request"


def call_threads(interceptor: Any) -> None:
    handler = interceptor.intercept_service(lambda _: THREADS, Details("/bob.Bob/Hello", METADATA))
    assert handler.stream_unary(iter([b"request"]), Context()) == b"request"


def call_aio(interceptor: Any) -> None:
    async def continuation(_: object) -> Any:
        return AIO

    async def call() -> None:
        handler = await interceptor.intercept_service(continuation, Details("/bob.Bob/Hello", METADATA))
        assert await handler.stream_unary(_none(), AsyncContext()) == b"request"

    asyncio.run(call())


async def _none() -> AsyncIterator[bytes]:
    return
    yield


async def _respond(request: bytes, _: object) -> bytes:
    return request


THREADS: Any = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
AIO: Any = grpc.unary_unary_rpc_method_handler(_respond)


@pytest.mark.parametrize(
    ("interceptor", "call"),
    [(PodAuthInterceptor, call_threads), (AsyncPodAuthInterceptor, call_aio)],
    ids=["threads", "aio"],
)
def test_a_call_of_a_known_caller_costs_at_most_18_calls(
    make_authenticator: AuthenticatorFactory, interceptor: Any, call: Any
) -> None:
    guard = interceptor(authenticator=make_authenticator())
    call(guard)
    calls = count_calls(lambda: call(guard))
    print(f"\n{calls.total()} calls: {dict(calls)}")
    assert 0 < calls.total() <= MAX_CALLS
    assert calls["authenticator.py:get_known"] == 1
    assert not any(name.startswith("pipeline.py:decide") for name in calls)
