"""Raw bytes sent to real servers: no header bypasses the checks, breaks a server, or leaks a token to its output."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.attacked_app import ALICE, LOCAL, MALLORY, AttackEnv
from tests.security.hostile_headers import authorizations, other_headers, unfold
from tests.support.leak_detector import LeakDetector
from tests.support.modes import pairs_in_turn
from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess, run_server

_GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--log-level", "debug", "--access-logfile", "-"]
_BIND = ["--bind", "127.0.0.1:{port}"]
COMMANDS = {
    "gunicorn sync": [*_GUNICORN, *_BIND, "tests.security.debug_logging_app:wsgi_app"],
    "gunicorn gthread": [*_GUNICORN, *_BIND, "--threads", "4", "tests.security.debug_logging_app:wsgi_app"],
    "gunicorn asgi": [*_GUNICORN, *_BIND, "--worker-class", "asgi", "tests.security.debug_logging_app:asgi_app"],
    # By default it believes X-Forwarded-For from 127.0.0.1.
    "uvicorn": [
        "-m",
        "uvicorn",
        "--log-level",
        "debug",
        "--port",
        "{port}",
        "tests.security.debug_logging_app:asgi_app",
    ],
}


@pytest.fixture(scope="module", params=pairs_in_turn(COMMANDS))
def server(
    request: pytest.FixtureRequest, attack_env: AttackEnv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    name, mode = request.param
    kubeconfig = str(attack_env.cluster.kubeconfig_for("default/bob"))
    environ = {"PODPROOF_AUDIENCE": "bob", "PODPROOF_REJECTION_TTL": "0", "KUBECONFIG": kubeconfig}
    environ |= mode.environ
    folder = tmp_path_factory.mktemp("server")
    with run_server(COMMANDS[name], folder, PYTHONASYNCIODEBUG="1", **environ) as server:
        yield server


@pytest.fixture(autouse=True)
def no_token_in_server_output(server: ServerProcess, leak_detector: LeakDetector) -> Iterator[None]:
    yield
    leak_detector.add_output(server.log.read_text(errors="backslashreplace"))


def exchange(server: ServerProcess, source: str, headers: list[tuple[bytes, bytes]]) -> tuple[list[int], bytes]:
    """Send a GET with these headers, byte for byte; return the status of every response, and all bytes received."""
    lines = [b"GET / HTTP/1.1", b"Host: bob", b"Connection: close", *(b": ".join(header) for header in headers)]
    received = b""
    with (
        suppress(ConnectionResetError, BrokenPipeError),  # a server may reset the connection on invalid input
        socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS, (source, 0)) as connection,
    ):
        connection.sendall(b"".join(line + b"\r\n" for line in [*lines, b""]))
        while chunk := connection.recv(65536):
            received += chunk
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3})", received, re.MULTILINE)], received


@pytest.fixture(scope="module")
def tokens(attack_env: AttackEnv) -> list[bytes]:
    others = [
        attack_env.alice.token("eve"),
        attack_env.cluster.forge(attack_env.token),
        attack_env.mallory.token("bob"),
    ]
    return [token.encode() for token in (attack_env.token, *others)]


@given(data=st.data())
def test_only_one_bearer_header_with_one_valid_token_is_allowed(
    attack_env: AttackEnv, server: ServerProcess, leak_detector: LeakDetector, tokens: list[bytes], data: st.DataObject
) -> None:
    values, source = data.draw(authorizations(tokens)), data.draw(st.sampled_from([ALICE, ALICE, MALLORY]))
    for value in values:
        leak_detector.add_secret(value)
    statuses, _ = exchange(server, source, [(b"Authorization", value) for value in values])
    assert all(status == 200 or 400 <= status < 500 for status in statuses)
    assert 200 not in statuses or attack_env.model_allows([unfold(value) for value in values], source)


@given(headers=st.lists(other_headers(), max_size=4), source=st.sampled_from([ALICE, MALLORY, LOCAL]))
def test_no_other_header_allows_a_request_or_raises(
    attack_env: AttackEnv,
    server: ServerProcess,
    leak_detector: LeakDetector,
    headers: list[tuple[bytes, bytes]],
    source: str,
) -> None:
    credential = b"Bearer " + attack_env.token.encode()
    leak_detector.add_secret(credential)
    statuses, _ = exchange(server, source, [(b"Authorization", credential), *headers])
    assert all(status == 200 or 400 <= status < 500 for status in statuses)
    assert 200 not in statuses or source == ALICE


def test_a_valid_token_is_allowed(attack_env: AttackEnv, server: ServerProcess, leak_detector: LeakDetector) -> None:
    leak_detector.add_secret(attack_env.token)
    statuses, received = exchange(server, ALICE, [(b"authorization", b"bearer " + attack_env.token.encode())])
    assert statuses == [200]
    assert b"default/alice-pod" in received
