"""gRPC channels as pods: their calls have a pod's token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from podproof.grpc._async_client import token_interceptors
from podproof.grpc._blocking_client import TokenInterceptor

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def turn_channel(channel: Any, headers: Mapping[str, str]) -> Any:
    """Return a channel whose calls have a token in these headers; one of `grpc.aio` is the same one."""
    client: Any = _OneToken(headers)
    if not isinstance(channel, grpc.aio.Channel):
        return grpc.intercept_channel(channel, TokenInterceptor(client))
    for kind, interceptor in zip(_KINDS, token_interceptors(client), strict=True):
        getattr(channel, f"_{kind}_interceptors").append(interceptor)
    return channel


class _OneToken:
    """What interceptors use of a `TokenClient`, without a file."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def headers(self, _: object = None) -> Mapping[str, str]:
        return self._headers
