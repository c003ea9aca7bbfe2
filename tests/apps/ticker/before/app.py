"""Ticker: a gRPC service that is told prices and streams them on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

prices: dict[str, list[bytes]] = {}


def report(request: bytes, _context: grpc.ServicerContext) -> bytes:
    symbol, _, price = request.decode().partition(" ")
    prices.setdefault(symbol, []).append(price.encode())
    return price.encode()


def report_all(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return str(len([report(request, context) for request in requests])).encode()


def history(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    yield from prices.get(request.decode(), [])


def follow(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield prices.get(request.decode(), [b"unknown"])[-1]


def make_server(address: str) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(4))
    methods: dict[str, Any] = {
        "Report": grpc.unary_unary_rpc_method_handler(report),
        "ReportAll": grpc.stream_unary_rpc_method_handler(report_all),
        "History": grpc.unary_stream_rpc_method_handler(history),
        "Follow": grpc.stream_stream_rpc_method_handler(follow),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ticker.Ticker", methods)])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    return server, server.add_insecure_port(address)
