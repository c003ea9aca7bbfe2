"""The token with each call: the interceptors of clients, and call credentials."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from podproof import TokenClient, TokenUnavailable
from podproof.grpc import TokenInterceptor, call_credentials
from podproof.grpc._credentials import Attempts
from podproof.grpc.aio import token_interceptors
from tests.support.grpc_servers import handlers_of
from tests.unit.client.conftest import mint

FAR = 4_000_000_000
RESENT = ("unary_unary", "unary_stream")

Metadata = tuple[tuple[str, str], ...]
CallMethod = Callable[..., list[bytes]]


def new_token(number: int = 1) -> str:
    return mint(aud=["bob"], exp=FAR, jti=str(number))


@dataclass
class RecordingService:
    """Echoes. It keeps the tokens that arrive, and `answer`s each before it responds."""

    tokens: list[list[str]] = field(default_factory=list)
    answer: Callable[[Any], object] = lambda _: None
    after_first: Callable[[Any], object] = lambda _: None

    def _record(self, context: Any) -> None:
        metadata = context.invocation_metadata()
        self.tokens.append([value.removeprefix("Bearer ") for name, value in metadata if name == "authorization"])
        self.answer(context)

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        self._record(context)
        return request

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        self._record(context)
        yield request
        self.after_first(context)
        yield request

    def stream_unary(self, requests: Iterable[bytes], context: Any) -> bytes:
        self._record(context)
        return b"".join(requests)

    def stream_stream(self, requests: Iterable[bytes], context: Any) -> Iterator[bytes]:
        self._record(context)
        yield from requests


@pytest.fixture
def service() -> RecordingService:
    return RecordingService()


@pytest.fixture
def target(service: RecordingService) -> Iterator[str]:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[handlers_of(service)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(new_token())
    return path


@pytest.fixture
def client(token_file: Path) -> TokenClient:
    return TokenClient("bob", path=token_file)


@pytest.fixture(params=["grpc", "grpc.aio"])
def call(request: pytest.FixtureRequest, target: str, client: TokenClient) -> CallMethod:
    """Return what calls a method with the token, by either client, and returns the responses."""

    def call_blocking(kind: str, metadata: Metadata = ()) -> list[bytes]:
        with grpc.insecure_channel(target) as plain:
            channel: Any = grpc.intercept_channel(plain, TokenInterceptor(client))
            sent: Any = iter([b"one"]) if kind.startswith("stream") else b"one"
            received = getattr(channel, kind)(f"/echo.Echo/{kind}")(sent, metadata=metadata, timeout=10)
            return list(received) if kind.endswith("stream") else [received]

    async def call_async(kind: str, metadata: Metadata = ()) -> list[bytes]:
        async with grpc.aio.insecure_channel(target, interceptors=token_interceptors(client)) as channel:
            sent: Any = iter([b"one"]) if kind.startswith("stream") else b"one"
            made = getattr(channel, kind)(f"/echo.Echo/{kind}")(sent, metadata=metadata, timeout=10)
            responses = [response async for response in made] if kind.endswith("stream") else [await made]
            assert await made.code() is grpc.StatusCode.OK
            return responses

    if request.param == "grpc":
        return call_blocking
    return lambda *given, **more: asyncio.run(call_async(*given, **more))


def test_each_call_sends_the_token_that_is_in_the_file(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    assert call(kind)[0] == b"one"
    token_file.write_text(new_token(2))
    assert call(kind)[0] == b"one"
    assert service.tokens == [[new_token(1)], [new_token(2)]]


def test_the_token_goes_in_the_header_of_the_client_beside_an_authorization_of_the_app(
    call: CallMethod, kind: str, service: RecordingService, client: TokenClient, token_file: Path
) -> None:
    seen: list[dict[str, Any]] = []
    service.answer = lambda context: seen.append(dict(context.invocation_metadata()))
    vars(client).update(vars(TokenClient("bob", path=token_file, header="X-Pod-Authorization")))
    call(kind, (("authorization", "Bearer person"),))
    call(kind, (("x-pod-authorization", "Bearer mine"),))
    assert [(one.get("authorization"), one["x-pod-authorization"]) for one in seen] == [
        ("Bearer person", f"Bearer {new_token()}"),
        (None, "Bearer mine"),
    ]


def test_a_token_of_the_app_s_own_is_kept(call: CallMethod, kind: str, service: RecordingService) -> None:
    call(kind, (("authorization", "Bearer mine"), ("x-other", "1")))
    assert service.tokens == [["mine"]]


# Before grpcio 1.83, a call whose interceptor has raised an error says so once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_a_token_no_call_is_sent(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    token_file.unlink()
    with pytest.raises(TokenUnavailable):
        call(kind)
    assert service.tokens == []
    gc.collect()


def deny_and(act: Callable[[], object], service: RecordingService) -> None:
    """Deny the first call, after something has happened."""

    def answer(context: Any) -> None:
        if len(service.tokens) == 1:
            act()
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    service.answer = answer


@pytest.mark.parametrize("kind", RESENT, indirect=True)
def test_a_denied_call_is_made_once_more_with_a_newer_token(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    deny_and(lambda: token_file.write_text(new_token(2)), service)
    assert call(kind)[0] == b"one"
    assert service.tokens == [[new_token(1)], [new_token(2)]]


@pytest.mark.parametrize("kind", RESENT, indirect=True)
def test_a_denied_call_is_made_no_more_than_once_more(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    def answer(context: Any) -> None:
        token_file.write_text(new_token(len(service.tokens) + 1))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    service.answer = answer
    with pytest.raises(grpc.RpcError):
        call(kind)
    assert service.tokens == [[new_token(1)], [new_token(2)]]


@pytest.mark.parametrize("kind", RESENT, indirect=True)
@pytest.mark.parametrize("act", ["nothing", "unlink"])
def test_a_denied_call_is_not_repeated_without_a_newer_token(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path, act: str
) -> None:
    deny_and(token_file.unlink if act == "unlink" else lambda: None, service)
    with pytest.raises(grpc.RpcError) as raised:
        call(kind)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(service.tokens) == 1


@pytest.mark.parametrize("kind", RESENT, indirect=True)
def test_a_call_with_a_token_of_the_app_s_own_is_not_repeated(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    deny_and(lambda: token_file.write_text(new_token(2)), service)
    with pytest.raises(grpc.RpcError):
        call(kind, (("authorization", "Bearer mine"),))
    assert service.tokens == [["mine"]]


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"], indirect=True)
def test_a_call_that_has_sent_a_stream_is_not_repeated(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    deny_and(lambda: token_file.write_text(new_token(2)), service)
    with pytest.raises(grpc.RpcError):
        call(kind)
    assert len(service.tokens) == 1


@pytest.mark.parametrize("kind", RESENT, indirect=True)
def test_a_call_that_fails_otherwise_is_not_repeated(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    def answer(context: Any) -> None:
        token_file.write_text(new_token(2))
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    service.answer = answer
    with pytest.raises(grpc.RpcError) as raised:
        call(kind)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(service.tokens) == 1


@pytest.mark.parametrize("kind", ["unary_stream"], indirect=True)
def test_a_stream_that_has_begun_is_not_repeated(
    call: CallMethod, kind: str, service: RecordingService, token_file: Path
) -> None:
    def after_first(context: Any) -> None:
        token_file.write_text(new_token(2))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    service.after_first = after_first
    with pytest.raises(grpc.RpcError) as raised:
        call(kind)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(service.tokens) == 1


def test_both_attempts_are_within_the_timeout(client: TokenClient, token_file: Path) -> None:
    attempts = Attempts(client, SimpleNamespace(metadata=None, timeout=5, method="/a/b"))
    token_file.write_text(new_token(2))
    second = attempts.again(grpc.StatusCode.UNAUTHENTICATED)
    assert 4 < second.timeout < 5
    assert (second.metadata, second.method) == ((("authorization", f"Bearer {new_token(2)}"),), "/a/b")
    assert Attempts(client, SimpleNamespace(metadata=None, timeout=None)).details.timeout is None


def test_the_future_of_a_call_is_not_waited_for(
    target: str, client: TokenClient, service: RecordingService, token_file: Path
) -> None:
    has_future = Event()

    def deny(context: Any) -> None:
        assert has_future.wait(10)
        token_file.write_text(new_token(2))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    service.answer = deny
    with grpc.insecure_channel(target) as plain:
        channel: Any = grpc.intercept_channel(plain, TokenInterceptor(client))
        future = channel.unary_unary("/echo.Echo/unary_unary").future(b"", timeout=20)
        has_future.set()
        assert future.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(service.tokens) == 1


def test_a_stream_of_responses_is_a_call(target: str, client: TokenClient) -> None:
    with grpc.insecure_channel(target) as plain:
        channel: Any = grpc.intercept_channel(plain, TokenInterceptor(client))
        responses = channel.unary_stream("/echo.Echo/unary_stream")(b"one", timeout=10)
        is_call = isinstance(responses, grpc.Call)
        assert is_call
        assert list(responses) == [b"one", b"one"]
        assert responses.code() is grpc.StatusCode.OK


def test_a_stream_of_responses_is_a_call_of_grpc_aio(target: str, client: TokenClient) -> None:
    done: list[object] = []

    class Within(grpc.aio.UnaryStreamClientInterceptor):
        """Uses the call that the token's interceptor returns."""

        async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
            call = await continuation(details, request)
            assert isinstance(call, grpc.aio.UnaryStreamCall)
            call.add_done_callback(done.append)
            await call.wait_for_connection()
            assert (call.time_remaining() or 0) > 0
            assert not call.cancelled()
            assert await call.initial_metadata() is not None
            assert [await call.read(), await call.read(), await call.read()] == [b"one", b"one", grpc.aio.EOF]
            assert call.done()
            assert await call.code() is grpc.StatusCode.OK
            assert await call.details() == ""
            assert await call.trailing_metadata() is not None
            assert not call.cancel()
            return _as_async([b"read"])

    async def run() -> list[bytes]:
        interceptors = [Within(), *token_interceptors(client)]
        async with grpc.aio.insecure_channel(target, interceptors=interceptors) as made:
            channel: Any = made
            return [r async for r in channel.unary_stream("/echo.Echo/unary_stream")(b"one", timeout=10)]

    assert asyncio.run(run()) == [b"read"]
    assert len(done) == 1


async def _as_async(values: list[bytes]) -> Any:
    for value in values:
        yield value


@pytest.fixture
def secure(service: RecordingService) -> Iterator[tuple[str, grpc.ChannelCredentials]]:
    """Serve over a connection that gRPC takes for secure, as it is local, and yield the target and its credentials."""
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[handlers_of(service)])
        port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
        server.start()
        yield f"localhost:{port}", grpc.local_channel_credentials()
        server.stop(None).wait()


def call_securely(secure: tuple[str, grpc.ChannelCredentials], client: TokenClient) -> bytes:
    target, credentials = secure
    both = grpc.composite_channel_credentials(credentials, call_credentials(client))
    with grpc.secure_channel(target.replace("localhost", "127.0.0.1"), both) as made:
        channel: Any = made
        response: bytes = channel.unary_unary("/echo.Echo/unary_unary")(b"one", timeout=10)
        return response


def test_call_credentials_send_the_token_that_is_in_the_file(
    secure: Any, client: TokenClient, service: RecordingService, token_file: Path
) -> None:
    assert call_securely(secure, client) == b"one"
    token_file.write_text(new_token(2))
    assert call_securely(secure, client) == b"one"
    assert service.tokens == [[new_token(1)], [new_token(2)]]


def test_call_credentials_send_no_call_without_a_token(
    secure: Any, client: TokenClient, service: RecordingService, token_file: Path
) -> None:
    token_file.unlink()
    with pytest.raises(grpc.RpcError) as raised:
        call_securely(secure, client)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "token" in str(raised.value.details())
    assert service.tokens == []


@pytest.mark.parametrize(("hosts", "allowed"), [(["127.0.0.1"], True), (["bob"], False)])
def test_call_credentials_heed_the_hosts_of_the_client(
    secure: Any, token_file: Path, service: RecordingService, hosts: list[str], allowed: bool
) -> None:
    client = TokenClient("bob", path=token_file, hosts=hosts)
    if allowed:
        assert call_securely(secure, client) == b"one"
    else:
        with pytest.raises(grpc.RpcError, match=r"the token is not sent to 127\.0\.0\.1"):
            call_securely(secure, client)
    assert len(service.tokens) == allowed
