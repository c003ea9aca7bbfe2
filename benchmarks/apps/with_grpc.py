"""gRPC servers, bare and behind podproof: `python -m benchmarks.apps.with_grpc FLAVOUR NAME` prints the port."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from benchmarks import AUDIENCE, leave_out_extras


def hello(request: bytes, _: Any) -> bytes:
    """Respond with the request."""
    return request


async def hello_async(request: bytes, _: Any) -> bytes:
    """Respond with the request."""
    return request


def _handlers(respond: Any) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler("bob.Bob", {"Hello": grpc.unary_unary_rpc_method_handler(respond)})


def serve(name: str) -> None:
    """Serve from threads."""
    interceptors: list[Any] = []
    if name == "podproof":
        from podproof.grpc import PodAuthInterceptor  # noqa: PLC0415  without what is left out

        interceptors = [PodAuthInterceptor(audience=AUDIENCE)]
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_handlers(hello)], interceptors=interceptors)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


async def serve_async(name: str) -> None:
    """Serve from an event loop."""
    interceptors: list[Any] = []
    if name == "podproof":
        from podproof.grpc.aio import PodAuthInterceptor  # noqa: PLC0415  without what is left out

        interceptors = [PodAuthInterceptor(audience=AUDIENCE)]
    server = grpc.aio.server(handlers=[_handlers(hello_async)], interceptors=interceptors)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    leave_out_extras()
    if sys.argv[1] == "aio":
        asyncio.run(serve_async(sys.argv[2]))
    else:
        serve(sys.argv[2])
