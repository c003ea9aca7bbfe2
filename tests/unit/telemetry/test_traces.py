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
OF_ALICE = {
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
def ask(provider: TracerProvider) -> Callable[[Callable[[], object]], list[ReadableSpan]]:
    """Call within a server's span, and return all spans in the order of their end."""

    def ask(request: Callable[[], object]) -> list[ReadableSpan]:
        EXPORTER.clear()
        with provider.get_tracer("server").start_as_current_span("server", kind=trace.SpanKind.SERVER):
            request()
        return [*EXPORTER.get_finished_spans()]

    return ask


Ask = Callable[[Callable[[], object]], list[ReadableSpan]]


def test_the_caller_is_on_the_server_s_span(ask: Ask, make_client: Callable[..., MiddlewareClient]) -> None:
    server = ask(make_client())[-1]
    assert server.name == "server"
    assert server.attributes == OF_ALICE


def test_nobody_is_on_the_span_of_what_is_open_or_refused(
    ask: Ask, make_client: Callable[..., MiddlewareClient]
) -> None:
    app = make_client(exempt=["/healthz"])
    for request in (lambda: app("/healthz"), lambda: app(peer="10.9.9.9")):
        assert ask(request)[-1].attributes == {}


def test_a_miss_has_a_span_below_the_server_s(ask: Ask, make_client: Callable[..., MiddlewareClient]) -> None:
    app = make_client()
    miss, server = ask(app)
    assert miss.name == "podproof review token"
    assert miss.parent == server.context
    assert miss.attributes == {}
    assert [span.name for span in ask(app)] == ["server"]


def test_a_refusal_by_review_is_named_on_its_span(
    ask: Ask, make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI
) -> None:
    fake_api.review = review(authenticated=False)
    miss, _ = ask(make_client())
    assert miss.attributes == {"error.type": "token-review-failed"}
    assert miss.status.status_code is trace.StatusCode.UNSET


def test_our_own_trouble_is_an_error_of_the_span(
    ask: Ask, make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI
) -> None:
    fake_api.review = Unavailable("s3cret")
    miss, _ = ask(make_client())
    assert miss.attributes == {"error.type": "unavailable"}
    assert miss.status.status_code is trace.StatusCode.ERROR
    assert "s3cret" not in miss.to_json()


def test_without_opentelemetry_a_caller_is_noted_nowhere(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "INSTALLED", False)
    identity = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-pod", "uid"), "bob", 0)
    assert ask(lambda: traces.set_caller_attributes(identity))[-1].attributes == {}
