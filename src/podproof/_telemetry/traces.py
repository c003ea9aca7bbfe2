"""Traces by OpenTelemetry's API, if it is installed: the caller on the server's span, and a span for each review."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from podproof.errors import PodAuthError, Unavailable
from podproof.identity import PodIdentity

try:
    from opentelemetry import context, trace
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True
    get_current_span = trace.get_current_span

T = TypeVar("T")


def set_caller_attributes(identity: PodIdentity) -> None:
    """Set the caller on the current span: the server's, if its instrumentation is around the middleware.

    If it is inside, as Flask's own is, this can be called from a `before_request` function.
    """
    if not INSTALLED:
        return
    span = trace.get_current_span()
    if span.is_recording():
        pod = identity.pod
        span.set_attributes(
            {
                "k8s.namespace.name": pod.namespace,
                "k8s.pod.name": pod.name,
                "k8s.pod.uid": pod.uid,
                "enduser.id": identity.identity,
            }
        )


def with_span(name: str, work: Callable[[], T]) -> Callable[[], T]:
    """Return work that has a span of its own, whatever thread runs it, as a child of the span that is current now."""
    if not INSTALLED:
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
