"""The handlers of a server's methods, each behind the decision: made at the first call of a method, and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from podproof._request.pipeline import RequestPipeline
from podproof.grpc._call import Handler, without_token

METHOD_NOT_FOUND = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
"""What gRPC responds with for a method that has no handler. Only callers that are allowed learn that."""

MAX_KEPT = 1000
"""Methods whose handlers are kept: a generic handler may have any number."""

Guard = Callable[[RequestPipeline, str, Handler], Handler]


class GuardedHandlers:
    """Puts the decision before handlers."""

    def __init__(self, pipeline: RequestPipeline, guard: Guard, not_found: Callable[..., Any]) -> None:
        self._pipeline = pipeline
        self._guard = guard
        self._not_found: Handler = grpc.stream_unary_rpc_method_handler(not_found)
        self._kept: dict[str, tuple[Handler, Handler]] = {}

    def guard(self, method: str, handler: Handler | None) -> Handler:
        """Return the handler of a method, behind the decision."""
        if handler is None:
            return self._guard(self._pipeline, method, self._not_found)
        kept = self._kept.get(method)
        # Other interceptors may make a handler for each call.
        if kept is not None and kept[0] is handler:
            return kept[1]
        guarded = self._guard(self._pipeline, method, handler)
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[method] = handler, guarded
        return guarded

    def seen_within(self, details: Any) -> Any:
        """Return what the interceptors within see of a call: its token only where the app may need it."""
        if not self._pipeline.takes_token_off:
            return details
        return type(details)(
            details.method, without_token(details.invocation_metadata or (), self._pipeline.header.texts)
        )
