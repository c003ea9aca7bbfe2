"""`TokenInterceptor`: puts the token on the calls of channels of `grpc`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from podproof.client import TokenClient
from podproof.grpc._credentials import Attempts

Continuation = Callable[[Any, Any], Any]


class TokenInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends this pod's token with each call of a channel, also of an insecure one, in a cluster without TLS.

    >>> channel = grpc.intercept_channel(grpc.insecure_channel("bob:50051"), TokenInterceptor(TokenClient("bob")))

    If no token is available a call raises TokenUnavailable and is not sent. `authorization`, or the client's `header`,
    in the metadata that the app gives is kept. A call with one request that ends with UNAUTHENTICATED before its first
    response is made once more if the file holds another token by then, within its timeout; a call by `future()` is not
    waited for.

    The client's `hosts` are not looked at: a channel has one target.
    """

    def __init__(self, client: TokenClient) -> None:
        self._client = client

    def intercept_unary_unary(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        """Make a call."""
        attempts = Attempts(self._client, client_call_details)
        call = continuation(attempts.details, request)
        second = attempts.again(call.code()) if call.done() else None
        return call if second is None else continuation(second, request)

    def intercept_unary_stream(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        """Make a call."""
        attempts = Attempts(self._client, client_call_details)
        return _Responses(continuation, attempts, request)

    def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Iterator[Any]
    ) -> Any:
        """Make a call."""
        return continuation(Attempts(self._client, client_call_details).details, request_iterator)

    intercept_stream_stream = intercept_stream_unary


class _Responses:
    """The responses to one request: those of the second attempt if the first has none and is denied."""

    def __init__(self, continuation: Continuation, attempts: Attempts, request: Any) -> None:
        self._continuation = continuation
        self._attempts: Attempts | None = attempts
        self._request = request
        self._call = continuation(attempts.details, request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        attempts, self._attempts = self._attempts, None
        if attempts is None:
            return next(self._call)
        try:
            return next(self._call)
        except grpc.RpcError as error:
            details = attempts.again(error.code())
            if details is None:
                raise
        self._call = self._continuation(details, self._request)
        return next(self._call)


grpc.Call.register(_Responses)
grpc.Future.register(_Responses)
