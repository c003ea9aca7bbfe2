"""The ticker's own tests, which know nothing of pods."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc


@pytest.fixture(scope="module")
def target(app_module: ModuleType) -> Iterator[str]:
    server, port = app_module.make_server("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_price_that_is_reported_is_streamed_on(channel: grpc.Channel, app_module: ModuleType) -> None:
    app_module.prices.clear()
    unary: Any = channel.unary_unary("/ticker.Ticker/Report")
    assert unary(b"tea 3") == b"3"
    stream_unary: Any = channel.stream_unary("/ticker.Ticker/ReportAll")
    assert stream_unary(iter([b"tea 4", b"rye 7"])) == b"2"
    unary_stream: Any = channel.unary_stream("/ticker.Ticker/History")
    assert [*unary_stream(b"tea")] == [b"3", b"4"]
    stream_stream: Any = channel.stream_stream("/ticker.Ticker/Follow")
    assert [*stream_stream(iter([b"rye", b"oat"]))] == [b"7", b"unknown"]


def test_it_is_healthy(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert response.status == health_pb2.HealthCheckResponse.SERVING
