"""`token_interceptors`: put the token on the calls of channels of `grpc.aio`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from podproof.client import TokenClient
from podproof.grpc._credentials import Attempts

Continuation = Callable[[Any, Any], Awaitable[Any]]


def token_interceptors(client: TokenClient) -> Sequence[grpc.aio.ClientInterceptor]:
    """Return the interceptors of a channel that sends this pod's token: one for each kind of call.

    >>> channel = grpc.aio.insecure_channel("bob:50051", interceptors=token_interceptors(TokenClient("bob")))

    All else is as with `podproof.grpc.TokenInterceptor`.
    """
    return [_UnaryUnary(client), _UnaryStream(client), _StreamUnary(client), _StreamStream(client)]


class _Interceptor:
    def __init__(self, client: TokenClient) -> None:
        self._client = client

    def attempts(self, details: Any) -> Attempts:
        return Attempts(self._client, details, lambda metadata: grpc.aio.Metadata(*metadata))


class _UnaryUnary(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        attempts = self.attempts(client_call_details)
        call = await continuation(attempts.details, request)
        second = attempts.again(await call.code())
        return call if second is None else await continuation(second, request)


class _UnaryStream(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        attempts = self.attempts(client_call_details)
        return _Responses(await continuation(attempts.details, request), attempts, continuation, request)


class _StreamUnary(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self.attempts(client_call_details).details, request_iterator)


class _StreamStream(_Interceptor, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self.attempts(client_call_details).details, request_iterator)


class _Responses(grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]  # it takes none at run time
    """The responses to one request: those of the second attempt if the first has none and is denied."""

    def __init__(self, call: Any, attempts: Attempts, continuation: Continuation, request: Any) -> None:
        self._call = call
        self._attempts = attempts
        self._continuation = continuation
        self._request = request
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._iterate()
        return self._iterator

    async def _iterate(self) -> AsyncIterator[Any]:
        begun = False
        try:
            async for response in self._call:
                begun = True
                yield response
        except grpc.aio.AioRpcError as error:
            details = None if begun else self._attempts.again(error.code())
            if details is None:
                raise
        else:
            return
        self._call = await self._continuation(details, self._request)
        async for response in self._call:
            yield response

    async def read(self) -> Any:
        try:
            return await anext(aiter(self))
        except StopAsyncIteration:
            return grpc.aio.EOF

    # All else is about the attempt that is being made.

    def cancelled(self) -> bool:
        return bool(self._call.cancelled())

    def done(self) -> bool:
        return bool(self._call.done())

    def time_remaining(self) -> float | None:
        remaining: float | None = self._call.time_remaining()
        return remaining

    def cancel(self) -> bool:
        return bool(self._call.cancel())

    def add_done_callback(self, callback: Any) -> None:
        self._call.add_done_callback(callback)

    async def initial_metadata(self) -> Any:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await self._call.trailing_metadata()

    async def code(self) -> Any:
        return await self._call.code()

    async def details(self) -> Any:
        return await self._call.details()

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()
