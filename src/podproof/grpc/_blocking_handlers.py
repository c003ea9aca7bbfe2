"""Handlers that run in threads, behind the decision: it is taken in the handler's thread, before a request is read."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import grpc

from podproof._request.blocking_driver import run_flow
from podproof._request.context import current_request
from podproof._request.pipeline import RequestPipeline
from podproof.errors import PodAuthError, Unavailable
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
from podproof.grpc._token_ends import token_ends

log = logging.getLogger("podproof")


def guard_blocking(  # noqa: PLR0915  a closure for each way to respond
    pipeline: RequestPipeline, method: str, handler: Handler
) -> Handler:
    """Return a handler that runs another one for callers that are allowed.

    A single request is taken as a stream of one: so a caller that is denied cannot hold a thread by sending nothing,
    and nothing of what it sends is parsed.
    """
    behavior = behavior_of(handler)
    read: Callable[[Iterator[Any], Any, _TokenEnd | None], Any] = _read_stream
    if not handler.request_streaming:
        read = partial(_read_single, method, handler.request_deserializer)
    may_last = handler.request_streaming or handler.response_streaming

    def respond(requests: Iterator[Any], context: Any) -> Any:
        call = known_call(pipeline, method, context) or _decide(pipeline, method, context)
        end = _TokenEnd(pipeline, call) if may_last else None
        try:
            response = behavior(read(requests, context, end), call.context)
            call.settle(OK if (code := context.code()) is None else number(code))
        except BaseException as error:
            _fail(call, error)
            raise
        finally:
            _close(call, end)
        return response

    def stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        call = known_call(pipeline, method, context) or _decide(pipeline, method, context)
        end = _TokenEnd(pipeline, call)
        try:
            for response in behavior(read(requests, context, end), call.context):
                if not call.settled:
                    call.settle(OK)
                yield response
            call.settle(OK if (code := context.code()) is None else number(code))
        except BaseException as error:
            _fail(call, error)
            raise
        finally:
            _close(call, end)

    def send(requests: Iterator[Any], context: Any, callback: Callable[[Any], None]) -> None:
        call = known_call(pipeline, method, context) or _decide(pipeline, method, context)
        end = _TokenEnd(pipeline, call)
        lasts = False
        try:
            behavior(read(requests, context, end), call.context, callback)
            call.settle(OK)
            lasts = context.add_callback(partial(_close, call, end))
        except BaseException as error:
            _fail(call, error)
            raise
        finally:
            if not lasts:
                _close(call, end)

    make: Callable[..., Handler] = grpc.stream_stream_rpc_method_handler
    guarded: Any = stream
    if not handler.response_streaming:
        make, guarded = grpc.stream_unary_rpc_method_handler, respond
    elif getattr(behavior, "experimental_non_blocking", False):
        guarded = send  # as the Watch of grpc_health.v1: the handler returns, and responds later
    for name in ("experimental_non_blocking", "experimental_thread_pool"):
        if hasattr(behavior, name):
            setattr(guarded, name, getattr(behavior, name))
    deserializer = handler.request_deserializer if handler.request_streaming else None
    return make(guarded, deserializer, handler.response_serializer)


class _TokenEnd:
    """Ends a call when its caller's token expires: the client sees why, and the handler a client that has left."""

    def __init__(self, pipeline: RequestPipeline, call: Call) -> None:
        self.has_come = False
        self._context = call.given
        self._moment = time.monotonic() + call.ends_at - pipeline.monotonic()
        if self._moment < math.inf:
            token_ends.get().add(self._moment, self._end)

    def cancel(self) -> None:
        """Leave the call to its handler, which has ended."""
        if self._moment < math.inf:
            token_ends.get().discard(self._moment, self._end)

    def _end(self) -> None:
        self.has_come = True
        context = self._context
        call = getattr(getattr(context, "_rpc_event", None), "call", None)
        if call is not None:
            call.cancel(grpc.StatusCode.UNAUTHENTICATED.value[0], ENDED)  # which context.cancel() cannot say
        else:
            context.cancel()


def _decide(pipeline: RequestPipeline, method: str, context: Any) -> Call:
    """Return the call if its caller is allowed, else abort it."""
    source = source_of(pipeline, method, context)
    try:
        allowed = run_flow(decide(pipeline, source), context.time_remaining)
    except PodAuthError as denial:
        if isinstance(denial, Unavailable) and _is_over(context):
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "")  # no client is left to be denied
        _abort(context, refuse(pipeline, denial, source))
    return make_call(pipeline, context, source, allowed)


def _fail(call: Call, error: BaseException) -> None:
    """Log how a call has failed; a PodAuthError denies it."""
    if isinstance(error, PodAuthError):
        _abort(call.given, call.refuse(error))
    left = not isinstance(error, Exception) or not call.given.is_active()
    call.settle(None if left else number(call.given.code() or grpc.StatusCode.UNKNOWN))


def _close(call: Call, end: _TokenEnd | None) -> None:
    if end is not None:
        end.cancel()
    call.end(None)
    # Another call's, where a generator is closed in another thread.
    if current_request.get() is call:
        current_request.set(None)


def _abort(context: Any, refusal: Refusal) -> NoReturn:
    context.set_trailing_metadata(refusal.trailers)
    context.abort(refusal.code, refusal.details)
    raise AssertionError("abort raises")  # pragma: no cover  it does


def _read_stream(requests: Iterator[Any], context: Any, end: _TokenEnd | None) -> Iterator[Any]:
    """Yield the requests of a call. Those that its end has cut off do not end as if they were complete.

    gRPC may tell a handler so if its call is cancelled while it waits for a request.
    """
    yield from requests
    if end is not None and end.has_come:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, ENDED)


def _read_single(
    method: str, parse: Callable[[bytes], Any] | None, requests: Iterator[bytes], context: Any, _: _TokenEnd | None
) -> Any:
    """Return the one request of a call, as gRPC itself reads it."""
    request = next(requests, None)
    if request is None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f'"{method}" requires exactly one request message.')
        raise AssertionError("abort raises")  # pragma: no cover  it does
    if parse is None:
        return request
    try:
        return parse(request)
    except Exception:
        log.exception("the request of %s cannot be parsed", method)
        context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


def _is_over(context: Any) -> bool:
    return not context.is_active() or context.time_remaining() <= 0
