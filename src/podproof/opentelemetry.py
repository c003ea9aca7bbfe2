"""The caller on a server's span that is started behind the middleware, as Flask's and Django's instrumentation do."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind

from podproof._request.context import current_caller
from podproof._telemetry.traces import caller_attributes

__all__ = ["CallerSpanProcessor"]


class CallerSpanProcessor(SpanProcessor):
    """Sets the current caller on each server span that starts: `provider.add_span_processor(CallerSpanProcessor())`.

    A server span that is started around the middleware has it without this.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002  as the SDK names it
        """Set the caller, if there is one."""
        identity = current_caller()
        if identity is not None and span.kind is SpanKind.SERVER:
            span.set_attributes(caller_attributes(identity))
