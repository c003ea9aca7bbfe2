"""Handlers of grpc.aio that run on the event loop, behind the decision: it is taken before a request is read."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any, NoReturn

import grpc
import grpc.aio

from podproof._request.async_driver import run_flow
from podproof._request.pipeline import RequestPipeline
from podproof.errors import PodAuthError
from podproof.grpc._call import (
    ENDED,
    OK,
    Call,
    Handler,
    Refusal,
    behavior_of,
    decide,
    known_call,
    make_call,
    number,
    refuse,
    source_of,
)

log = logging.getLogger("podproof")


def guard_async(pipeline: RequestPipeline, method: str, handler: Handler) -> Handler:
    """Return a handler that runs another one for callers that are allowed.

    One that is not async is not run: in a thread, gRPC's context crashes the process if the client has left.

    A single request is taken as a stream of one: nothing that a denied caller sends is read.
    """
    behavior = behavior_of(handler)
    if not (iscoroutinefunction(behavior) or isasyncgenfunction(behavior)):
        return guard_async(pipeline, method, _NOT_ASYNC)
    single = not handler.request_streaming
    may_last = handler.request_streaming or handler.response_streaming

    async def respond(requests: Any, context: Any) -> Any:
        call = known_call(pipeline, method, context) or await _decide(pipeline, method, context)
        end = _TokenEnd(pipeline, call) if may_last else None
        try:
            response = await behavior(await _read_single(method, context) if single else requests, call.context)
            if end is not None:
                await end.cancel()
            call.settle(OK if (code := context.code()) is None else number(code))
        except BaseException as error:
            await _fail(call, end, error)
            raise
        finally:
            call.end(None)
        return response

    async def stream(requests: Any, context: Any) -> AsyncIterator[Any]:
        call = known_call(pipeline, method, context) or await _decide(pipeline, method, context)
        end = _TokenEnd(pipeline, call)
        try:
            request = await _read_single(method, context) if single else requests
            async for response in behavior(request, call.context):
                if not call.settled:
                    call.settle(OK)
                yield response
            await end.cancel()
            call.settle(OK if (code := context.code()) is None else number(code))
        except BaseException as error:
            await _fail(call, end, error)
            raise
        finally:
            call.end(None)

    if not handler.response_streaming:
        make: Any = grpc.stream_unary_rpc_method_handler
    else:
        make = grpc.stream_stream_rpc_method_handler
    guarded = stream if isasyncgenfunction(behavior) else respond
    return make(guarded, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]


async def _not_async(_: object, context: Any) -> None:
    log.error("the handler of a method is not async: it is not called, since grpc.aio would run it in a thread")
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method is not served.")


_NOT_ASYNC: Handler = grpc.stream_unary_rpc_method_handler(_not_async)


class _TokenEnd:
    """Ends a call when its caller's token expires: the handler is cancelled, and the client sees why."""

    def __init__(self, pipeline: RequestPipeline, call: Call) -> None:
        self._call = call
        self._task = asyncio.current_task()
        self._aborting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if call.ends_at < math.inf:
            seconds = call.ends_at - pipeline.monotonic()
            self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    async def cancel(self) -> None:
        """Leave the call to its handler, which has ended. Raises what has aborted it, if it is too late."""
        if self._timer is not None:
            self._timer.cancel()
        if self._aborting is not None:
            await self._aborting

    def uncancel(self) -> None:
        """Let go on the task that was cancelled, if it was."""
        if self._aborting is not None and self._task is not None:
            self._task.uncancel()

    def _end(self) -> None:
        if self._task is None or self._task.done():
            return  # the client has left, and a context without a call crashes the process
        ended = Refusal(grpc.StatusCode.UNAUTHENTICATED, ENDED, ())
        # The status first: it is sent whatever the handler makes of being cancelled.
        self._aborting = asyncio.get_running_loop().create_task(_abort(self._call.given, ended))
        self._aborting.add_done_callback(_retrieve)
        self._task.cancel()


async def _fail(call: Call, end: _TokenEnd | None, error: BaseException) -> None:
    """Log how a call has failed; a PodAuthError denies it."""
    if end is not None:
        if isinstance(error, asyncio.CancelledError):
            end.uncancel()
        await end.cancel()
    if isinstance(error, PodAuthError):
        await _abort(call.given, call.refuse(error))
    # Of a client that has left the handler is cancelled.
    left = not isinstance(error, Exception)
    call.settle(None if left else number(call.given.code() or grpc.StatusCode.UNKNOWN))


def _retrieve(aborting: asyncio.Task[None]) -> None:
    """Look at how an abort ended, which asyncio logs if nothing does: it always raises."""
    if not aborting.cancelled():
        aborting.exception()


async def _decide(pipeline: RequestPipeline, method: str, context: Any) -> Call:
    """Return the call if its caller is allowed, else abort it."""
    source = source_of(pipeline, method, context)
    try:
        allowed = await run_flow(decide(pipeline, source))
    except PodAuthError as denial:
        await _abort(context, refuse(pipeline, denial, source))
    return make_call(pipeline, context, source, allowed)


async def _abort(context: Any, refusal: Refusal) -> NoReturn:
    await context.abort(refusal.code, refusal.details, refusal.trailers)
    raise AssertionError("abort raises")  # pragma: no cover  it does


async def _read_single(method: str, context: Any) -> Any:
    """Return the one request of a call."""
    request = await context.read()
    if request is grpc.aio.EOF:
        details = f'"{method}" requires exactly one request message.'
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, details)
    return request
