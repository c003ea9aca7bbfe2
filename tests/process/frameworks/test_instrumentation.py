"""OpenTelemetry's own instrumentation of Flask and Django: it starts the server's span behind the middleware."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask
import pytest
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from werkzeug.test import Client

from podproof.opentelemetry import CallerSpanProcessor
from podproof.wsgi import PodAuthMiddleware
from tests.process.frameworks import django_project
from tests.support.fake_api import PEER, AuthenticatorFactory, token

TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"Authorization": f"Bearer {token()}", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(CallerSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def test_flasks_span_has_the_caller(
    make_authenticator: AuthenticatorFactory, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    app = flask.Flask("bob")
    app.add_url_rule("/", view_func=lambda: "ok")
    instrumentor: Any = FlaskInstrumentor()
    instrumentor.instrument_app(app, tracer_provider=provider)
    served = PodAuthMiddleware(app.wsgi_app, authenticator=make_authenticator())
    try:
        assert Client(served).get("/", headers=HEADERS, environ_overrides={"REMOTE_ADDR": PEER}).status_code == 200
    finally:
        instrumentor.uninstrument_app(app)
    check_span(exporter)


def view(_: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


urlpatterns = [path("", view)]


@pytest.fixture
def instrumented_django(provider: TracerProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(MIDDLEWARE=[], ROOT_URLCONF=__name__):
        DjangoInstrumentor().instrument(tracer_provider=provider)
        yield
        DjangoInstrumentor().uninstrument()


@pytest.mark.usefixtures("instrumented_django")
def test_djangos_span_has_the_caller(make_authenticator: AuthenticatorFactory, exporter: InMemorySpanExporter) -> None:
    served = PodAuthMiddleware(get_wsgi_application(), authenticator=make_authenticator())
    assert Client(served).get("/", headers=HEADERS, environ_overrides={"REMOTE_ADDR": PEER}).status_code == 200
    check_span(exporter)


def check_span(exporter: InMemorySpanExporter) -> None:
    spans: tuple[ReadableSpan, ...] = exporter.get_finished_spans()
    [span] = [one for one in spans if one.kind is SpanKind.SERVER]
    assert span.attributes is not None
    assert span.attributes["podproof.caller.service_account"] == "default/alice"
    assert span.context is not None
    assert format(span.context.trace_id, "032x") == TRACE
