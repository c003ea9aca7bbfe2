"""Requests that are judged inside an app: what a dependency, a hook and an authentication class have in common."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Self

from podproof._request.context import IDENTITY, CurrentRequest, current_request
from podproof._request.incoming import IncomingRequest
from podproof._telemetry import traces
from podproof.errors import IdentityEnded

if TYPE_CHECKING:
    from podproof._request.flow import Allowed
    from podproof._request.pipeline import RequestPipeline


class InAppRequest(CurrentRequest):
    """A request that is allowed from within an app. `ends_at`, in monotonic seconds, is when its token expires."""

    __slots__ = ("ends_at",)

    ends_at: float

    def leave(self, status: int | None = None) -> None:
        """End the request, and take it out of this context."""
        self.end(status)
        current_request.set(None)


def enter(
    pipeline: RequestPipeline,
    allowed: Allowed,
    source: MutableMapping[str, Any],
    read: Callable[[Any], IncomingRequest],
) -> InAppRequest:
    """Return a request that is allowed, as the current one, with its caller in its environ or scope."""
    caller, peer, recorder = allowed
    request = InAppRequest()
    request.recorder, request.read, request.source, request.peer = recorder, read, source, peer
    request.denial, request.settled = None, False
    request.identity, request.ends_at = None, math.inf
    if caller is not None:
        request.identity = caller.identity
        request.ends_at = time.monotonic() + caller.ends_at - pipeline.monotonic()
        if traces.INSTALLED and traces.get_current_span().is_recording():
            traces.set_caller_attributes(caller.identity)
    source[IDENTITY] = request.identity
    current_request.set(request)
    return request


class LimitedChunks:
    """A streamed response until a moment in monotonic seconds; it is never broken off before its first chunk."""

    def __init__(self, chunks: Iterable[bytes], ends_at: float) -> None:
        self._given = chunks
        self._chunks = iter(chunks)
        self._ends_at = ends_at
        self._sent = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self._sent = _check(self._ends_at, chunk, sent=self._sent)
        return chunk

    def close(self) -> None:
        """Close the response that was given, if it can be closed."""
        if hasattr(self._given, "close"):
            self._given.close()


async def limit_chunks(chunks: AsyncIterable[bytes], ends_at: float) -> AsyncIterator[bytes]:
    """Yield a streamed response, as `LimitedChunks` does."""
    sent = False
    async for chunk in chunks:
        sent = _check(ends_at, chunk, sent=sent)
        yield chunk


def _check(ends_at: float, chunk: bytes, *, sent: bool) -> bool:
    if sent and time.monotonic() >= ends_at:
        raise IdentityEnded("the caller's token has expired during the response")
    return sent or bool(chunk)
