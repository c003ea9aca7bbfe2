"""What gRPC servers have besides the app's own methods: health, reflection, other interceptors, odd handlers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from queue import SimpleQueue
from threading import Event, current_thread
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from podproof import current_caller
from podproof.grpc import PodAuthInterceptor
from podproof.grpc import aio as podproof_aio
from podproof.grpc._blocking_handlers import _TokenEnd
from podproof.grpc._call import Call, address_of
from podproof.grpc._guarded_handlers import MAX_KEPT, GuardedHandlers
from tests.support.fake_api import AuthenticatorFactory, Clock, token
from tests.support.grpc_servers import EchoService, bearer, call, status_of
from tests.unit.grpc.conftest import Serve

ALICE = bearer(token())
HEALTH = "/grpc.health.v1.Health/*"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/*"


def health_handler(flavour: str) -> grpc.GenericRpcHandler:
    servicer: Any = health.aio.HealthServicer() if flavour == "aio" else health.HealthServicer()
    methods: Any = {
        "Check": grpc.unary_unary_rpc_method_handler(
            servicer.Check, health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        ),
        "Watch": grpc.unary_stream_rpc_method_handler(
            servicer.Watch, health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        ),
    }
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)


def reflection_handler(flavour: str) -> grpc.GenericRpcHandler:
    servicer: Any = (reflection.aio.ReflectionServicer if flavour == "aio" else reflection.ReflectionServicer)(
        ["echo.Echo"]
    )
    method: Any = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(
        "grpc.reflection.v1alpha.ServerReflection", {"ServerReflectionInfo": method}
    )


def test_health_is_checked_without_a_token_where_it_is_exempt(serve: Serve, flavour: str) -> None:
    method = "/grpc.health.v1.Health/Check"
    assert status_of(serve(more=[health_handler(flavour)]), "unary_unary", method=method) == "UNAUTHENTICATED"
    target = serve(more=[health_handler(flavour)], exempt=[HEALTH])
    assert call(target, "unary_unary", method=method, requests=[]) == [b"\x08\x01"]  # SERVING
    assert status_of(target, "unary_unary") == "UNAUTHENTICATED"


@pytest.mark.parametrize("metadata", [(), ALICE])
def test_health_is_watched(serve: Serve, flavour: str, metadata: Any) -> None:
    target = serve(more=[health_handler(flavour)], exempt=[] if metadata else [HEALTH])
    with grpc.insecure_channel(target) as made:
        channel: Any = made
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", metadata=tuple(metadata), timeout=10)
        assert next(watch) == b"\x08\x01"
        watch.cancel()


def test_a_watch_ends_with_the_token(serve: Serve, flavour: str, time: Clock) -> None:
    target = serve(more=[health_handler(flavour)])
    time.passes(3600 - 0.1)
    status = status_of(target, "unary_stream", ALICE, method="/grpc.health.v1.Health/Watch", requests=[])
    assert status == "UNAUTHENTICATED"


def test_reflection_needs_no_token_where_it_is_exempt(serve: Serve, flavour: str) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    assert status_of(serve(more=[reflection_handler(flavour)]), "stream_stream", method=method) == "UNAUTHENTICATED"
    target = serve(more=[reflection_handler(flavour)], exempt=[REFLECTION])
    assert b"echo.Echo" in call(target, "stream_stream", method=method, requests=[request])[0]


class Seeing(grpc.ServerInterceptor):
    """An interceptor within ours, which notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        self.seen.append(dict(details.invocation_metadata))
        return continuation(details)


class AsyncSeeing(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        self.seen.append(dict(details.invocation_metadata))
        return await continuation(details)


@pytest.mark.parametrize(
    ("options", "sees_it"), [({}, False), ({"enforce": False}, True), ({"keep_authorization": True}, True)]
)
def test_an_interceptor_within_sees_the_token_only_where_the_app_may_need_it(
    serve: Serve, flavour: str, options: dict[str, Any], sees_it: bool
) -> None:
    within: Any = Seeing() if flavour == "threads" else AsyncSeeing()
    call(serve(interceptors=[within], **options), "unary_unary", [*ALICE, ("x-other", "1")])
    assert ("authorization" in within.seen[0]) is sees_it
    assert within.seen[0]["x-other"] == "1"


@pytest.mark.parametrize("keep", [False, True])
def test_an_interceptor_in_another_says_so(
    serve: Serve, flavour: str, make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture, keep: bool
) -> None:
    kind: Any = PodAuthInterceptor if flavour == "threads" else podproof_aio.PodAuthInterceptor
    within = kind(authenticator=make_authenticator())
    status = status_of(serve(interceptors=[within], keep_authorization=keep), "unary_unary", ALICE)
    assert status == ("OK" if keep else "UNAUTHENTICATED")
    assert ("has authenticated the request and taken its token off" in caplog.text) is not keep


def test_handlers_of_other_interceptors_are_made_for_each_call() -> None:
    made: list[Any] = []

    def guard(_: Any, method: str, handler: Any) -> Any:
        made.append(method)
        return handler

    pipeline: Any = None
    handlers = GuardedHandlers(pipeline, guard, lambda: None)
    first: Any
    second: Any
    first, second = (grpc.unary_unary_rpc_method_handler(lambda *_: b"") for _ in range(2))
    for handler in (first, first, second, second, first):
        assert handlers.guard("/a/b", handler) is handler
    assert made == ["/a/b"] * 3
    for index in range(MAX_KEPT):
        handlers.guard(f"/a/{index}", first)
    assert len(handlers._kept) <= MAX_KEPT


@pytest.mark.parametrize("flavour", ["threads"], indirect=True)
def test_a_handler_runs_in_the_pool_of_its_own(serve: Serve) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="its-own") as threads:

        class Service:
            def unary_unary(self, request: bytes, context: Any) -> bytes:
                return current_thread().name.encode()

        service = Service()
        Service.unary_unary.experimental_thread_pool = threads  # type: ignore[attr-defined]
        assert call(serve(service=service), "unary_unary", ALICE) == [b"its-own_0"]


class Later:
    """A handler that returns at once and responds later, from another thread."""

    def __init__(self) -> None:
        self.callers: SimpleQueue[Any] = SimpleQueue()

    def unary_stream(self, request: bytes, context: Any, respond: Callable[[Any], None]) -> None:
        self.callers.put(current_caller())
        if request == b"fail":
            raise RuntimeError("mine")
        respond(request)
        respond(None)


Later.unary_stream.experimental_non_blocking = True  # type: ignore[attr-defined]


@pytest.mark.parametrize("flavour", ["threads"], indirect=True)
def test_a_handler_may_respond_by_a_callback(serve: Serve) -> None:
    service = Later()
    target = serve(service=service)
    assert call(target, "unary_stream", ALICE) == [b"one"]
    assert str(service.callers.get(timeout=10).service_account) == "default/alice"
    assert status_of(target, "unary_stream") == "UNAUTHENTICATED"
    assert status_of(target, "unary_stream", ALICE, requests=[b"fail"]) == "UNKNOWN"


def test_a_call_whose_context_is_not_grpc_s_own_is_cancelled() -> None:
    ended = Event()

    class Context:
        def cancel(self) -> None:
            ended.set()

    class Pipeline:
        @staticmethod
        def monotonic() -> float:
            return 0

    made = Call()
    made.given, made.ends_at = Context(), 0.01
    pipeline: Any = Pipeline()
    end = _TokenEnd(pipeline, made)
    assert ended.wait(10)
    assert end.has_come


@pytest.mark.parametrize("flavour", ["aio"], indirect=True)
def test_a_handler_of_grpc_aio_that_is_not_async_is_not_called(
    serve: Serve, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    reached: list[Any] = []
    target = serve(service=EchoService(reached.append))
    assert status_of(target, kind) == "UNAUTHENTICATED"
    assert status_of(target, kind, ALICE) == "UNIMPLEMENTED"
    assert reached == []
    assert "is not async" in caplog.text


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("ipv6:%5B2001:db8::7%5D:4711", "2001:db8::7"),
        ("ipv6:[2001:db8::7]:4711", "2001:db8::7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::1%eth0"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:4711", "::ffff:10.0.0.7"),
        ("unix:/run/bob.sock", None),
        ("unix:", None),
        ("unix-abstract:ipv4:10.0.0.7:1", None),
        ("vsock:2:4711", None),
        ("unknown", None),
        ("", None),
        ("ipv4:", ""),
    ],
)
def test_the_address_of_a_peer(peer: str, address: str | None) -> None:
    assert address_of(peer) == address


@pytest.mark.parametrize("module", ["podproof.grpc", "podproof.grpc.aio"])
def test_a_name_that_is_not_there_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nothing'"):
        getattr(import_module(module), "nothing")  # noqa: B009  mypy would not have it
