"""The example for each HTTP library sends the current token with every request, and to no other host."""

from __future__ import annotations

import asyncio
import inspect
import runpy
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest

from podproof.client import TokenUnavailable
from tests.support.server_process import ROOT
from tests.unit.client.conftest import RecordingServer, Volume

CALLERS = ROOT / "examples/callers"
HTTP = ("requests", "httpx", "httpx_async", "httpx2", "httpx2_async", "aiohttp", "urllib3")


def rotate(volume: Volume) -> str:
    """Put another token in the file, valid for an hour from now."""
    token = jwt.encode(
        {"aud": ["bob"], "exp": time.time() + 3600, "jti": str(volume.versions)},
        "a key of at least thirty-two bytes for HS256",
    )
    volume.write(token)
    return f"Bearer {token}"


@pytest.fixture(autouse=True)
def token_file(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", str(volume.file))


@pytest.fixture(params=HTTP)
def example(request: pytest.FixtureRequest) -> Path:
    return CALLERS / f"{request.param}_alice.py"


@contextmanager
def loaded(example: Path, name: str) -> Iterator[dict[str, Any]]:
    """Run the file with a `__name__`; yield its globals, and close its connections at the end."""
    names = runpy.run_path(str(example), run_name=name)
    yield names
    http = names.get("http")
    close: Any = getattr(http, "close", None) or getattr(http, "clear", lambda: None)
    close()


@pytest.fixture
def whoami(example: Path) -> Iterator[Callable[[str], str]]:
    """Return the example's `whoami` as a synchronous function."""
    with loaded(example, "alice") as names:
        call = names["whoami"]
        yield (lambda url: asyncio.run(call(url))) if inspect.iscoroutinefunction(call) else call


def test_an_example_is_a_script_that_prints_the_response(
    example: Path,
    volume: Volume,
    server: RecordingServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    token = rotate(volume)
    monkeypatch.setenv("BOB_URL", server.url)
    with loaded(example, "__main__"):
        assert capsys.readouterr().out == "fine\n"
    assert [(request.path, request.authorization) for request in server.requests] == [("/whoami", token)]


def test_an_example_sends_the_token_that_is_in_the_file_now(
    whoami: Callable[[str], str], volume: Volume, server: RecordingServer
) -> None:
    tokens = []
    for _ in range(2):
        tokens.append(rotate(volume))
        assert whoami(server.url) == "fine"
    assert server.authorizations == tokens
    assert tokens[0] != tokens[1]


def test_an_example_follows_a_redirect_to_another_host_without_the_token(
    whoami: Callable[[str], str], volume: Volume, server: RecordingServer, other_server: RecordingServer
) -> None:
    rotate(volume)
    server.redirect(f"{other_server.url}/there")
    assert whoami(server.url) == "fine"
    assert other_server.authorizations == [None]


def test_an_example_sends_no_request_without_a_token(whoami: Callable[[str], str], server: RecordingServer) -> None:
    with pytest.raises(TokenUnavailable):
        whoami(server.url)
    assert server.requests == []


@contextmanager
def run_grpc_server(certificate: tuple[str, str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serve one method over TLS; yield the address, and the metadata that arrives."""
    sent: list[tuple[str, str]] = []

    def whoami(_: bytes, context: Any) -> bytes:
        sent.extend((name, value) for name, value in context.invocation_metadata() if name == "authorization")
        return b"fine"

    authority, key = (Path(path).read_bytes() for path in certificate)
    server = grpc.server(ThreadPoolExecutor(1))
    handlers: dict[str, Any] = {"WhoAmI": grpc.unary_unary_rpc_method_handler(whoami)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bob.Bob", handlers)])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, authority)]))
    server.start()
    try:
        yield f"127.0.0.1:{port}", sent
    finally:
        server.stop(None).wait()


def test_grpc_sends_the_current_token_in_the_metadata_of_each_call(
    certificate: tuple[str, str],
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with run_grpc_server(certificate) as (target, sent):
        monkeypatch.setenv("BOB", target)
        monkeypatch.setenv("BOB_CA", certificate[0])
        first = rotate(volume)
        names = runpy.run_path(str(CALLERS / "grpc_alice.py"), run_name="__main__")
        second = rotate(volume)
        assert names["whoami"](target, Path(certificate[0]).read_bytes()) == "fine"
    assert capsys.readouterr().out == "fine\n"
    assert sent == [("authorization", first), ("authorization", second)]


def test_grpc_sends_no_request_without_a_token(certificate: tuple[str, str]) -> None:
    names = runpy.run_path(str(CALLERS / "grpc_alice.py"))
    with run_grpc_server(certificate) as (target, sent):
        with pytest.raises(grpc.RpcError):
            names["whoami"](target, Path(certificate[0]).read_bytes())
        assert sent == []
