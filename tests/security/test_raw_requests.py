"""Raw bytes through real servers: no header opens a door, breaks one, or shows in what a server prints."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.attacked_app import ALICE, LOCAL, MALLORY, World
from tests.security.headers import authorizations, named
from tests.support.leak_detector import Ears
from tests.support.server_process import SECONDS, Server, serving

_GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--log-level", "debug", "--access-logfile", "-"]
_BIND = ["--bind", "127.0.0.1:{port}"]
COMMANDS = {
    "gunicorn sync": [*_GUNICORN, *_BIND, "tests.security.debug_logging:wsgi_app"],
    "gunicorn gthread": [*_GUNICORN, *_BIND, "--threads", "4", "tests.security.debug_logging:wsgi_app"],
    "gunicorn asgi": [*_GUNICORN, *_BIND, "--worker-class", "asgi", "tests.security.debug_logging:asgi_app"],
    # As it comes, it believes X-Forwarded-For from 127.0.0.1.
    "uvicorn": ["-m", "uvicorn", "--log-level", "debug", "--port", "{port}", "tests.security.debug_logging:asgi_app"],
}


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    kubeconfig = str(world.cluster.kubeconfig_for("default/bob"))
    environ = {"PODPROOF_AUDIENCE": "bob", "PODPROOF_REJECTION_TTL": "0", "KUBECONFIG": kubeconfig}
    folder = tmp_path_factory.mktemp("server")
    with serving(COMMANDS[request.param], folder, PYTHONASYNCIODEBUG="1", **environ) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_printed_holds_a_token(server: Server, ears: Ears) -> Iterator[None]:
    yield
    ears.hear(server.log.read_text(errors="backslashreplace"))


def exchange(server: Server, source: str, headers: list[tuple[bytes, bytes]]) -> tuple[list[int], bytes]:
    """Send a GET with these headers, byte for byte; return the statuses of all answers that come, and all bytes."""
    lines = [b"GET / HTTP/1.1", b"Host: bob", b"Connection: close", *(b": ".join(header) for header in headers)]
    received = b""
    with (
        suppress(ConnectionResetError, BrokenPipeError),  # a server that has seen enough hangs up
        socket.create_connection(("127.0.0.1", server.port), SECONDS, (source, 0)) as connection,
    ):
        connection.sendall(b"".join(line + b"\r\n" for line in [*lines, b""]))
        while chunk := connection.recv(65536):
            received += chunk
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3})", received, re.MULTILINE)], received


def as_read(value: bytes) -> bytes:
    """Return a value as a server may read it (RFC 9112 section 5): unfolded, one line of it, no blanks around."""
    return re.split(rb"[\r\n]", re.sub(rb"\r?\n[ \t]+", b" ", value))[0].strip(b" \t")


@pytest.fixture(scope="module")
def tokens(world: World) -> list[bytes]:
    others = [world.alice.token("eve"), world.cluster.forge(world.token), world.mallory.token("bob")]
    return [token.encode() for token in (world.token, *others)]


@given(data=st.data())
def test_only_one_bearer_and_one_good_token_are_let_in(
    world: World, server: Server, ears: Ears, tokens: list[bytes], data: st.DataObject
) -> None:
    values, source = data.draw(authorizations(tokens)), data.draw(st.sampled_from([ALICE, ALICE, MALLORY]))
    for value in values:
        ears.keep(value)
    statuses, _ = exchange(server, source, [(b"Authorization", value) for value in values])
    assert all(status == 200 or 400 <= status < 500 for status in statuses)
    assert 200 not in statuses or world.welcomes([as_read(value) for value in values], source)


@given(headers=st.lists(named(), max_size=4), source=st.sampled_from([ALICE, MALLORY, LOCAL]))
def test_no_other_header_opens_or_breaks_anything(
    world: World, server: Server, ears: Ears, headers: list[tuple[bytes, bytes]], source: str
) -> None:
    good = b"Bearer " + world.token.encode()
    ears.keep(good)
    statuses, _ = exchange(server, source, [(b"Authorization", good), *headers])
    assert all(status == 200 or 400 <= status < 500 for status in statuses)
    assert 200 not in statuses or source == ALICE


def test_a_good_token_is_let_in(world: World, server: Server, ears: Ears) -> None:
    ears.keep(world.token)
    statuses, received = exchange(server, ALICE, [(b"authorization", b"bearer " + world.token.encode())])
    assert statuses == [200]
    assert b"default/alice-pod" in received
