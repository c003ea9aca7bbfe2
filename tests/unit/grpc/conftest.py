from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.fake_api import AuthenticatorFactory, FakeAPI, pod
from tests.support.grpc_servers import (
    FLAVOURS,
    KINDS,
    AsyncEchoService,
    EchoService,
    EventLoopThread,
    handlers_of,
    run_grpc_server,
)

LOCAL = "127.0.0.1"
Serve = Callable[..., str]


@pytest.fixture(scope="package")
def loop() -> Iterator[EventLoopThread]:
    loop = EventLoopThread()
    yield loop
    loop.close()


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fake_api() -> FakeAPI:
    """Return an API whose pod of Alice is at our own addresses."""
    return FakeAPI(pod=pod(status={"podIP": LOCAL, "podIPs": [{"ip": LOCAL}, {"ip": "::1"}]}))


@pytest.fixture
def serve(flavour: str, loop: EventLoopThread, make_authenticator: AuthenticatorFactory) -> Iterator[Serve]:
    """Start a server of this flavour: the echo service, with what is called inside, or a service of the test's own.

    Other arguments are options, but for those of `run_grpc_server`.
    """
    with ExitStack() as stack:

        def serve(
            inside: Callable[[Any], object] = lambda _: None,
            *,
            service: object = None,
            more: Any = (),
            listen: str = f"{LOCAL}:0",
            interceptors: Any = (),
            **options: object,
        ) -> str:
            if service is None:
                service = AsyncEchoService(inside) if flavour == "aio" else EchoService(inside)
            server = run_grpc_server(
                flavour,
                loop,
                [handlers_of(service), *more],
                listen=listen,
                interceptors=interceptors,
                authenticator=make_authenticator(**options),
            )
            return stack.enter_context(server)

        yield serve
