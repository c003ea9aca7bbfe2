"""Each library's example: the token of the moment with every request, and to no other host."""

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
from tests.unit.client.conftest import Server, Volume

CALLERS = ROOT / "examples/callers"
HTTP = ("requests", "httpx", "httpx_async", "httpx2", "httpx2_async", "aiohttp", "urllib3")


def rotate(volume: Volume) -> str:
    """Put another token in the file, good for an hour from now."""
    token = jwt.encode(
        {"aud": ["bob"], "exp": time.time() + 3600, "jti": str(volume.versions)},
        "a key that nobody here looks at, long",
    )
    volume.write(token)
    return f"Bearer {token}"


@pytest.fixture(autouse=True)
def alice_s_token_file(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", str(volume.file))


@pytest.fixture(params=HTTP)
def example(request: pytest.FixtureRequest) -> Path:
    return CALLERS / f"{request.param}_alice.py"


@contextmanager
def loaded(example: Path, name: str) -> Iterator[dict[str, Any]]:
    """Run the file under a name; give its names, and close its connections at the end."""
    names = runpy.run_path(str(example), run_name=name)
    yield names
    http = names.get("http")
    close: Any = getattr(http, "close", None) or getattr(http, "clear", lambda: None)
    close()


@pytest.fixture
def whoami(example: Path) -> Iterator[Callable[[str], str]]:
    """The example's function, to be called from where no event loop runs."""
    with loaded(example, "alice") as names:
        ask = names["whoami"]
        yield (lambda url: asyncio.run(ask(url))) if inspect.iscoroutinefunction(ask) else ask


def test_an_example_is_a_script_that_prints_the_answer(
    example: Path, volume: Volume, bob: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = rotate(volume)
    monkeypatch.setenv("BOB_URL", bob.url)
    with loaded(example, "__main__"):
        assert capsys.readouterr().out == "fine\n"
    assert [(seen.path, seen.authorization) for seen in bob.seen] == [("/whoami", token)]


def test_an_example_sends_the_token_that_is_in_the_file_now(
    whoami: Callable[[str], str], volume: Volume, bob: Server
) -> None:
    tokens = []
    for _ in range(2):
        tokens.append(rotate(volume))
        assert whoami(bob.url) == "fine"
    assert bob.authorizations == tokens
    assert tokens[0] != tokens[1]


def test_an_example_follows_to_another_host_without_the_token(
    whoami: Callable[[str], str], volume: Volume, bob: Server, elsewhere: Server
) -> None:
    rotate(volume)
    bob.redirect(f"{elsewhere.url}/there")
    assert whoami(bob.url) == "fine"
    assert elsewhere.authorizations == [None]


def test_an_example_does_not_call_without_a_token(whoami: Callable[[str], str], bob: Server) -> None:
    with pytest.raises(TokenUnavailable):
        whoami(bob.url)
    assert bob.seen == []


@contextmanager
def grpc_bob(certificate: tuple[str, str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serve one method over TLS; give the address, and the metadata that arrives."""
    seen: list[tuple[str, str]] = []

    def whoami(_: bytes, context: Any) -> bytes:
        seen.extend((name, value) for name, value in context.invocation_metadata() if name == "authorization")
        return b"fine"

    authority, key = (Path(path).read_bytes() for path in certificate)
    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"WhoAmI": grpc.unary_unary_rpc_method_handler(whoami)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bob.Bob", handlers)])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, authority)]))
    server.start()
    try:
        yield f"127.0.0.1:{port}", seen
    finally:
        server.stop(None).wait()


def test_grpc_sends_the_token_of_the_moment_in_each_call_s_metadata(
    certificate: tuple[str, str],
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with grpc_bob(certificate) as (target, seen):
        monkeypatch.setenv("BOB", target)
        monkeypatch.setenv("BOB_CA", certificate[0])
        first = rotate(volume)
        names = runpy.run_path(str(CALLERS / "grpc_alice.py"), run_name="__main__")
        second = rotate(volume)
        assert names["whoami"](target, Path(certificate[0]).read_bytes()) == "fine"
    assert capsys.readouterr().out == "fine\n"
    assert seen == [("authorization", first), ("authorization", second)]


def test_grpc_does_not_call_without_a_token(certificate: tuple[str, str]) -> None:
    names = runpy.run_path(str(CALLERS / "grpc_alice.py"))
    with grpc_bob(certificate) as (target, seen):
        with pytest.raises(grpc.RpcError):
            names["whoami"](target, Path(certificate[0]).read_bytes())
        assert seen == []
