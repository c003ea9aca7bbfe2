"""`PodAuthInterceptor` for `grpc.aio.server`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Unpack

import grpc
import grpc.aio

from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof.grpc._async_handlers import guard_async
from podproof.grpc._call import Handler
from podproof.grpc._guarded_handlers import METHOD_NOT_FOUND, GuardedHandlers
from podproof.options import signature


class PodAuthInterceptor(grpc.aio.ServerInterceptor):
    """Allows only calls of authenticated pods, and tells their handlers which pod is calling: `current_caller()`.

    As `podproof.grpc.PodAuthInterceptor`: `grpc.aio.server(interceptors=[PodAuthInterceptor(audience="bob"), ...])`.
    """

    __signature__ = signature(app=False)

    def __init__(self, **given: Unpack[MiddlewareOptions]) -> None:
        self._handlers = GuardedHandlers(build_pipeline(given), guard_async, _not_found)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the handler of a call, behind the decision."""
        return self._handlers.guard(details.method, await continuation(self._handlers.seen_within(details)))


async def _not_found(_: object, context: Any) -> None:
    await context.abort(*METHOD_NOT_FOUND)
