"""Traces by OpenTelemetry's API, if it is installed: the caller on the spans of its request, a span for each review."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from podproof.errors import PodAuthError, Unavailable
from podproof.identity import PodIdentity

try:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True
    get_current_span = trace.get_current_span

T = TypeVar("T")


def caller_attributes(identity: PodIdentity) -> dict[str, str]:
    """Return the attributes of a caller.

    `k8s.pod.name` and its like are resource attributes of what emits the span, so the caller's have their own names.
    """
    return {
        "enduser.id": identity.identity,
        "podproof.caller.service_account": str(identity.service_account),
        "podproof.caller.namespace": identity.pod.namespace,
        "podproof.caller.pod.name": identity.pod.name,
        "podproof.caller.pod.uid": identity.pod.uid,
    }


def set_caller_attributes(identity: PodIdentity) -> None:
    """Set the caller on the current span: the server's, if its instrumentation is around the middleware."""
    if INSTALLED:
        get_current_span().set_attributes(caller_attributes(identity))


@contextmanager
def within_trace(traceparent: str | None) -> Iterator[None]:
    """Make the trace that a request came with the current one, where no instrumentation around us has done so."""
    if not INSTALLED or traceparent is None or _has_span():
        yield
        return
    before = context.attach(TraceContextTextMapPropagator().extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(before)


def _has_span() -> bool:
    return get_current_span().get_span_context().is_valid


def with_span(name: str, work: Callable[[], T]) -> Callable[[], T]:
    """Return work that has a span of its own, whatever thread runs it, as a child of the span that is current now.

    Without one it has none: its span would be a trace of its own, which leads to no request.
    """
    if not INSTALLED or not _has_span():
        return work
    parent = context.get_current()
    tracer = trace.get_tracer("podproof")

    def do() -> T:
        with tracer.start_as_current_span(name, parent) as span:
            outcome = work()
            if isinstance(outcome, PodAuthError):
                span.set_attribute("error.type", outcome.code)
                if isinstance(outcome, Unavailable):
                    span.set_status(trace.StatusCode.ERROR)
            return outcome

    return do
