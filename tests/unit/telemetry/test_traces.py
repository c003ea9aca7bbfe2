from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from podproof._telemetry import traces
from podproof.errors import Unavailable
from podproof.identity import Pod, PodIdentity, ServiceAccount
from tests.support.fake_api import FakeAPI, review
from tests.support.middleware_client import MiddlewareClient

EXPORTER = InMemorySpanExporter()
ALICE_ATTRIBUTES = {
    "k8s.namespace.name": "default",
    "k8s.pod.name": "alice-pod",
    "k8s.pod.uid": "pod-uid",
    "enduser.id": "system:serviceaccount:default:alice",
}


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """Set the provider of this process: OpenTelemetry lets that be done once."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def spans_of(provider: TracerProvider) -> Callable[[Callable[[], object]], list[ReadableSpan]]:
    """Return a call that makes a request within a server's span, and returns all spans in the order of their end."""

    def collect(request: Callable[[], object]) -> list[ReadableSpan]:
        EXPORTER.clear()
        with provider.get_tracer("server").start_as_current_span("server", kind=trace.SpanKind.SERVER):
            request()
        return [*EXPORTER.get_finished_spans()]

    return collect


SpansOf = Callable[[Callable[[], object]], list[ReadableSpan]]


def test_the_servers_span_has_the_caller(spans_of: SpansOf, make_client: Callable[..., MiddlewareClient]) -> None:
    server = spans_of(make_client())[-1]
    assert server.name == "server"
    assert server.attributes == ALICE_ATTRIBUTES


def test_the_span_of_an_exempt_or_denied_request_has_no_caller(
    spans_of: SpansOf, make_client: Callable[..., MiddlewareClient]
) -> None:
    client = make_client(exempt=["/healthz"])
    for request in (lambda: client("/healthz"), lambda: client(peer="10.9.9.9")):
        assert spans_of(request)[-1].attributes == {}


def test_a_review_has_a_span_below_the_servers(spans_of: SpansOf, make_client: Callable[..., MiddlewareClient]) -> None:
    client = make_client()
    review_span, server = spans_of(client)
    assert review_span.name == "podproof review token"
    assert review_span.parent == server.context
    assert review_span.attributes == {}
    assert [span.name for span in spans_of(client)] == ["server"]


def test_the_span_of_a_rejected_token_has_the_error_code(
    spans_of: SpansOf, make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI
) -> None:
    fake_api.review = review(authenticated=False)
    review_span, _ = spans_of(make_client())
    assert review_span.attributes == {"error.type": "token-review-failed"}
    assert review_span.status.status_code is trace.StatusCode.UNSET


def test_an_api_server_failure_is_an_error_of_the_span(
    spans_of: SpansOf, make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI
) -> None:
    fake_api.review = Unavailable("s3cret")
    review_span, _ = spans_of(make_client())
    assert review_span.attributes == {"error.type": "unavailable"}
    assert review_span.status.status_code is trace.StatusCode.ERROR
    assert "s3cret" not in review_span.to_json()


def test_without_opentelemetry_no_attribute_is_set(spans_of: SpansOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "INSTALLED", False)
    identity = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-pod", "uid"), "bob", 0)
    assert spans_of(lambda: traces.set_caller_attributes(identity))[-1].attributes == {}
