"""An identity ends with its request, on every server: no later request, task or thread sees the former caller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from podproof.testing import Cluster
from tests.support.cluster_env import ClusterEnv
from tests.support.modes import Mode, modes_in_turn
from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess, run_server

ALICE = "127.0.0.2"
BODY = b"x" * 2_000_000
"""Larger than what servers buffer: the app waits for the rest, and the server's reader gets the app's context."""

ASGI_APP, WSGI_APP = "tests.process.context_apps:asgi_app", "tests.process.context_apps:wsgi_app"
UVICORN = ["-m", "uvicorn", "--no-proxy-headers", "--lifespan", "on", "--port", "{port}"]
GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:{port}"]
HYPERCORN = ["-m", "hypercorn", "--bind", "127.0.0.1:{port}"]
ASGI = {
    "uvicorn asyncio h11": [*UVICORN, "--loop", "asyncio", "--http", "h11", ASGI_APP],
    "uvicorn asyncio httptools": [*UVICORN, "--loop", "asyncio", "--http", "httptools", ASGI_APP],
    "uvicorn uvloop h11": [*UVICORN, "--loop", "uvloop", "--http", "h11", ASGI_APP],
    "uvicorn uvloop httptools": [*UVICORN, "--loop", "uvloop", "--http", "httptools", ASGI_APP],
    "hypercorn asyncio": [*HYPERCORN, ASGI_APP],
    "hypercorn trio": [*HYPERCORN, "--worker-class", "trio", ASGI_APP],
    "granian asgi": ["-m", "granian", "--interface", "asgi", "--port", "{port}", ASGI_APP],
    "gunicorn asgi": [*GUNICORN, "--worker-class", "asgi", ASGI_APP],
    "gunicorn uvicorn-worker": [*GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker", ASGI_APP],
}
WSGI = {
    "gunicorn sync": [*GUNICORN, WSGI_APP],
    "gunicorn gthread": [*GUNICORN, "--worker-class", "gthread", "--threads", "1", WSGI_APP],
    "gunicorn gevent": [*GUNICORN, "--worker-class", "gevent", WSGI_APP],
    "granian wsgi": ["-m", "granian", "--interface", "wsgi", "--port", "{port}", WSGI_APP],
}
WITHOUT_TOKEN = ("/outside/require", "/inside/exempt", "/inside/require")
"""Paths that require default/alice, for requests without a token: each must be denied with 401."""


@pytest.fixture(scope="module")
def cluster_env() -> Iterator[ClusterEnv]:
    with Cluster() as cluster:
        env = ClusterEnv(cluster)
        env.add_pod("alice", ALICE)
        yield env


@pytest.fixture(scope="module")
def token(cluster_env: ClusterEnv) -> str:
    return cluster_env.tokens["alice"]


def no_later_code_sees_the_caller(server: ServerProcess, token: str, action: str) -> None:
    """Send a request as Alice, and look into its context when the server has finished with it."""
    status = server.get(ALICE, token, f"/inside/{action}").status
    assert status == (200 if action in ("plain", "stream") else 500)
    callers = server.get(ALICE, None, "/outside/report").json
    assert {*callers} >= {"context", "thread"}
    assert callers == dict.fromkeys(callers)
    assert server.get(ALICE, None, "/outside/require").status == 401


def no_caller_on_a_kept_connection(server: ServerProcess, token: str, path: str, body: bytes) -> None:
    """Send a request as Alice, and then one without a token on the same connection, where the server keeps it."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS, source_address=(ALICE, 0))
    headers = {"Authorization": f"Bearer {token}"}
    statuses = []
    try:
        for method, target, content, sent in (("POST", "/inside/plain", body, headers), ("GET", path, None, {})):
            connection.request(method, target, content, sent)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
    finally:
        connection.close()
    assert statuses == [200, 401]


def no_caller_on_a_pipelined_request(server: ServerProcess, token: str, path: str, body: bytes) -> None:
    """Send a request as Alice and one without a token at once, before the first response."""
    first = (
        f"POST /inside/plain HTTP/1.1\r\nHost: bob\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n"
    )
    second = f"GET {path} HTTP/1.1\r\nHost: bob\r\nConnection: close\r\n"
    received = server.send(ALICE, f"{first}\r\n".encode() + body + f"{second}\r\n".encode())
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]
    # gunicorn's sync worker closes the connection after the first response.
    assert statuses in ([200, 401], [200])


@pytest.mark.trap(51)
@pytest.mark.parametrize(("name", "mode"), modes_in_turn([*ASGI, *WSGI]))
def test_no_caller_outlives_its_request(
    name: str, mode: Mode, cluster_env: ClusterEnv, token: str, tmp_path: Path, *, subtests: pytest.Subtests
) -> None:
    environ = cluster_env.environ | mode.environ | {"FORWARDED_ALLOW_IPS": ""}
    with run_server((ASGI | WSGI)[name], tmp_path, **environ) as server:
        for action in ("plain", "stream", "raise", "nothing"):
            with subtests.test("no later code sees the caller", action=action):
                no_later_code_sees_the_caller(server, token, action)
        for path, body in (*((path, b"") for path in WITHOUT_TOKEN), (WITHOUT_TOKEN[0], BODY)):
            with subtests.test("no caller on a kept connection", path=path, body=len(body)):
                no_caller_on_a_kept_connection(server, token, path, body)
            with subtests.test("no caller on a pipelined request", path=path, body=len(body)):
                no_caller_on_a_pipelined_request(server, token, path, body)
