"""`PodAuthInterceptor` for `grpc.server`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import grpc

from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof.grpc._blocking_handlers import guard_blocking
from podproof.grpc._call import Handler
from podproof.grpc._guarded_handlers import METHOD_NOT_FOUND, GuardedHandlers
from podproof.options import signature


class PodAuthInterceptor(grpc.ServerInterceptor):
    """Allows only calls of authenticated pods, and tells their handlers which pod is calling: `current_caller()`.

    Options are those of `podproof.options.Options`, or PODPROOF_<NAME> in the environment; `authenticator` takes the
    place of the one that asks the API server. The path of `exempt`, rules and policies is the method that is called,
    as `/package.Service/Method`.

    Put it first: `grpc.server(..., interceptors=[PodAuthInterceptor(audience="bob"), ...])`.

    Raises ConfigurationError.
    """

    __signature__ = signature(app=False)

    def __init__(self, **given: Unpack[MiddlewareOptions]) -> None:
        self._handlers = GuardedHandlers(build_pipeline(given), guard_blocking, _not_found)

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Handler | None], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler of a call, behind the decision."""
        return self._handlers.guard(details.method, continuation(self._handlers.seen_within(details)))


def _not_found(_: object, context: grpc.ServicerContext) -> None:
    context.abort(*METHOD_NOT_FOUND)
