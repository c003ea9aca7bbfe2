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
from podproof.opentelemetry import CallerSpanProcessor
from tests.support.fake_api import FakeAPI, review
from tests.support.middleware_client import MiddlewareClient

EXPORTER = InMemorySpanExporter()
ALICE_ATTRIBUTES = {
    "enduser.id": "system:serviceaccount:default:alice",
    "podproof.caller.service_account": "default/alice",
    "podproof.caller.namespace": "default",
    "podproof.caller.pod.name": "alice-pod",
    "podproof.caller.pod.uid": "pod-uid",
}
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """Set the provider of this process: OpenTelemetry lets that be done once."""
    provider = TracerProvider()
    provider.add_span_processor(CallerSpanProcessor())
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


@pytest.mark.parametrize("kind", [trace.SpanKind.SERVER, trace.SpanKind.INTERNAL])
def test_a_server_span_that_starts_behind_the_middleware_has_the_caller(
    provider: TracerProvider, make_client: Callable[..., MiddlewareClient], kind: trace.SpanKind
) -> None:
    def view() -> None:
        with provider.get_tracer("flask").start_as_current_span("view", kind=kind):
            pass

    EXPORTER.clear()
    make_client(view)()
    [span] = EXPORTER.get_finished_spans()
    assert span.attributes == (ALICE_ATTRIBUTES if kind is trace.SpanKind.SERVER else {})


@pytest.mark.usefixtures("provider")
def test_without_a_span_around_it_a_review_is_in_the_trace_of_its_request(
    make_client: Callable[..., MiddlewareClient],
) -> None:
    EXPORTER.clear()
    app = make_client(policy="rbac")
    app(headers={"traceparent": TRACEPARENT})
    names = {span.name: format(span.context.trace_id, "032x") for span in EXPORTER.get_finished_spans() if span.context}
    assert names == {"podproof review token": TRACE, "podproof review access": TRACE}


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("traceparent", ["", "junk"])
def test_a_review_starts_no_trace_of_its_own(make_client: Callable[..., MiddlewareClient], traceparent: str) -> None:
    EXPORTER.clear()
    assert make_client()(headers={"traceparent": traceparent}).status == 200
    assert EXPORTER.get_finished_spans() == ()
