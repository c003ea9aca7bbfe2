"""Servers of gRPC in this process, in each flavour, with a service that echoes, and a client for each kind of call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any

import grpc
import grpc.aio

from podproof.grpc import PodAuthInterceptor
from podproof.grpc.aio import PodAuthInterceptor as AsyncPodAuthInterceptor

FLAVOURS = ("threads", "aio")
"""Handlers of grpc.server, and those of grpc.aio."""

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Inside = Callable[[Any], object]
Metadata = Sequence[tuple[str, str | bytes]]


class EchoService:
    """Responds with what it was sent, in each kind of call; `inside` is called with the context, before."""

    def __init__(self, inside: Inside = lambda _: None) -> None:
        self.inside = inside

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        self.inside(context)
        return request

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.inside(context)
        yield request

    def stream_unary(self, requests: Iterable[bytes], context: Any) -> bytes:
        self.inside(context)
        return b"".join(requests)

    def stream_stream(self, requests: Iterable[bytes], context: Any) -> Iterator[bytes]:
        self.inside(context)
        yield from requests


class AsyncEchoService:
    """The same in coroutines."""

    def __init__(self, inside: Inside = lambda _: None) -> None:
        self.inside = inside

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        self.inside(context)
        return request

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.inside(context)
        yield request

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.inside(context)
        return b"".join([request async for request in requests])

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.inside(context)
        async for request in requests:
            yield request


def handlers_of(service: object, name: str = "echo.Echo") -> grpc.GenericRpcHandler:
    """Return a generic handler that has a method for each kind of call, by the kind's name."""
    make = {kind: getattr(grpc, f"{kind}_rpc_method_handler") for kind in KINDS}
    methods = {kind: make[kind](getattr(service, kind)) for kind in KINDS if hasattr(service, kind)}
    return grpc.method_handlers_generic_handler(name, methods)


class EventLoopThread:
    """An event loop that runs in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine there, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def close(self) -> None:
        """End the loop, with the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def run_grpc_server(
    flavour: str,
    loop: EventLoopThread,
    handlers: Sequence[grpc.GenericRpcHandler],
    *,
    listen: str = "127.0.0.1:0",
    interceptors: Sequence[Any] = (),
    **options: Any,
) -> Iterator[str]:
    """Serve handlers behind the interceptor with these options, and yield the target for clients."""
    with ThreadPoolExecutor(4) as threads:
        if flavour == "threads":
            all_of_them = [PodAuthInterceptor(**options), *interceptors]
            server = grpc.server(threads, handlers=list(handlers), interceptors=all_of_them)
            port = server.add_insecure_port(listen)
            server.start()
            stop: Callable[[], object] = lambda: server.stop(None).wait()  # noqa: E731
        else:

            async def start() -> tuple[Any, int]:
                guard = [AsyncPodAuthInterceptor(**options), *interceptors]
                server = grpc.aio.server(threads, handlers=list(handlers), interceptors=guard)
                port = server.add_insecure_port(listen)
                await server.start()
                return server, port

            aio_server, port = loop.run(start())
            stop = lambda: loop.run(aio_server.stop(None))  # noqa: E731
        try:
            yield listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
        finally:
            stop()


def call(
    target: str,
    kind: str,
    metadata: Metadata = (),
    *,
    method: str | None = None,
    requests: Iterable[bytes] = (b"one",),
    timeout: float = 10,
    authority: str | None = None,
) -> list[bytes]:
    """Call a method of a kind, and return its responses. `authority` is the Host of the call. Raises grpc.RpcError."""
    options = [] if authority is None else [("grpc.default_authority", authority)]
    with grpc.insecure_channel(target, options) as channel:
        multi_callable = getattr(channel, kind)(method or f"/echo.Echo/{kind}")
        sent: Any = iter(requests) if kind.startswith("stream") else b"".join(requests)
        received = multi_callable(sent, metadata=tuple(metadata), timeout=timeout)
        return list(received) if kind.endswith("stream") else [received]


def bearer(token: str) -> Metadata:
    return [("authorization", f"Bearer {token}")]


def status_of(target: str, kind: str, metadata: Metadata = (), **given: Any) -> str:
    """Return the name of the status of a call."""
    try:
        call(target, kind, metadata, **given)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"
