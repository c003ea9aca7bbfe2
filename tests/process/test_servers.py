"""The same behaviour on every server: the Flask example on WSGI servers, the Starlette example on ASGI servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from podproof.testing import Cluster
from tests.support.cluster_env import ClusterEnv
from tests.support.modes import pairs_in_turn
from tests.support.server_process import ServerProcess, raw_request, run_server

ALICE, MALLORY, LOCAL = "127.0.0.2", "127.0.0.3", "127.0.0.1"
ALICE_IDENTITY = {"service_account": "default/alice", "pod": "default/alice-pod"}

FLASK, STARLETTE = "examples.flask_bob:app", "examples.starlette_bob:app"
GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--bind", "unix:{socket}"]
UVICORN = ["-m", "uvicorn", "--http", "h11", STARLETTE]
VALIDATED_WSGI = """
import sys
from wsgiref.simple_server import make_server
from wsgiref.validate import validator
from examples.flask_bob import app
app.wsgi_app.app = validator(app.wsgi_app.app)
make_server("127.0.0.1", int(sys.argv[1]), validator(app)).serve_forever()
"""
ASGI = {
    "gunicorn asgi": [*GUNICORN, "--bind", "127.0.0.1:{port}", "--worker-class", "asgi", STARLETTE],
    "gunicorn uvicorn-worker": [
        *GUNICORN,
        "--bind=127.0.0.1:{port}",
        "--worker-class=uvicorn_worker.UvicornWorker",
        STARLETTE,
    ],
    "uvicorn": [*UVICORN, "--no-proxy-headers", "--port", "{port}"],
}
PRELOADED = ["--bind", "[::]:{port}", "--worker-class", "gthread", "--threads", "4", "--workers", "2", "--preload"]
WSGI = {
    "gunicorn sync": [*GUNICORN, "--bind", "127.0.0.1:{port}", FLASK],
    "gunicorn gthread": [*GUNICORN, *PRELOADED, FLASK],
    "werkzeug": ["-m", "flask", "--app", "examples.flask_bob", "run", "--port", "{port}"],
    "wsgiref": ["-c", VALIDATED_WSGI, "{port}"],
}
SERVERS = ASGI | WSGI


@pytest.fixture(scope="module")
def cluster_env() -> Iterator[ClusterEnv]:
    with Cluster() as cluster:
        cluster_env = ClusterEnv(cluster)
        for name, address in (("alice", ALICE), ("mallory", MALLORY), ("local", LOCAL)):
            cluster_env.add_pod(name, address)
        yield cluster_env


@pytest.fixture(scope="module", params=pairs_in_turn(SERVERS))
def server(
    request: pytest.FixtureRequest, cluster_env: ClusterEnv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    name, mode = request.param
    folder = tmp_path_factory.mktemp("server")
    environ = cluster_env.environ | mode.environ
    with run_server(SERVERS[name], folder, FORWARDED_ALLOW_IPS="", **environ) as server:
        yield server


@pytest.fixture
def token(cluster_env: ClusterEnv) -> str:
    return cluster_env.tokens["alice"]


def status_of(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


@pytest.mark.trap(19, 21)
def test_a_token_is_allowed_from_its_own_pod_only(server: ServerProcess, token: str) -> None:
    response = server.get(ALICE, token)
    assert (response.status, response.json) == (200, ALICE_IDENTITY)
    assert server.get(MALLORY, token).status == 403
    assert server.get(ALICE, token).status == 200


@pytest.mark.trap(25)
def test_every_unacceptable_token_gets_the_same_401(server: ServerProcess, cluster_env: ClusterEnv) -> None:
    forged = cluster_env.cluster.forge(cluster_env.tokens["alice"])
    unbound = cluster_env.cluster.service_account("default/alice").token("bob")
    challenge = 'Bearer realm="bob"'
    for token in (cluster_env.tokens["alice for carol"], cluster_env.tokens["alice expired"], forged, unbound, "junk"):
        denied = server.get(ALICE, token)
        assert (denied.status, denied.headers["www-authenticate"]) == (401, f'{challenge}, error="invalid_token"')
        assert denied.headers["content-type"] == "application/problem+json"
        assert {name: denied.json[name] for name in ("title", "status", "detail")} == {
            "title": "Unauthorized",
            "status": 401,
            "detail": "The token is not accepted here.",
        }
    without_token = server.get(ALICE, None)
    assert (without_token.status, without_token.headers["www-authenticate"]) == (401, challenge)


@pytest.mark.trap(2, 34)
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Authorization: Bearer {}"], 200),
        (["authorization: bearer {}"], 200),
        (["Authorization: Bearer {}", "Authorization: Bearer {}"], 400),
        (["Authorization: Bearer {}", "authorization: Bearer x"], 400),
        (["Authorization: Bearer {} junk"], 400),
        (["Authorization: Bearer  {}"], 400),
        (["Authorization: Bearer {}="], 400),
        (["Authorization: Bearer \xff{}"], 400),
        (["Authorization: Bearer"], 400),
        (["Authorization:"], 400),
        (["Proxy-Authorization: Bearer {}"], 401),
    ],
)
def test_a_credential_has_one_valid_form(server: ServerProcess, token: str, lines: list[str], status: int) -> None:
    filled = [line.format(token) for line in lines]
    assert status_of(server.send(ALICE, raw_request("/whoami", *filled))) == status


def test_the_response_to_a_denied_head_request_has_no_body(server: ServerProcess) -> None:
    head, _, body = server.send(ALICE, raw_request("/whoami", method="HEAD")).partition(b"\r\n\r\n")
    assert status_of(head) == 401
    assert body == b""


def test_a_post_without_a_token_is_denied_whatever_its_body(server: ServerProcess) -> None:
    assert server.request("POST", ALICE, "/echo", body=b"x" * 100_000).status == 401


def test_a_posted_body_reaches_the_app(server: ServerProcess, token: str) -> None:
    response = server.request("POST", ALICE, "/echo", {"Content-Type": "text/plain"}, token=token, body=b"hello")
    assert (response.status, response.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert response.body == b"hello"


def test_an_exempt_path_needs_no_token(server: ServerProcess) -> None:
    for path in ("/healthz", "/healthz?x=%20"):
        assert (server.get(MALLORY, None, path).status, server.get(MALLORY, None, path).body) == (200, b"ok")


@pytest.mark.trap(38)
@pytest.mark.parametrize(
    "path",
    [
        "//healthz",
        "/%68ealthz",
        "/healthz/",
        "/healthz/../whoami",
        "/whoami/../healthz",
        "/healthz/%2e%2e/whoami",
        "/healthz%2f..%2fwhoami",
        "/healthz;x",
    ],
)
def test_only_the_exact_path_is_exempt(server: ServerProcess, path: str) -> None:
    received = server.send(MALLORY, raw_request(path))
    # http.server merges slashes before any app sees them, and wsgiref hides escapes: there, /healthz itself responds.
    assert status_of(received) == 401 or received.endswith(b"\r\n\r\nok")


@pytest.mark.trap(22)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X_Forwarded_For", "X-Real-IP", "Client-IP"])
def test_no_header_changes_a_caller_s_address(server: ServerProcess, token: str, header: str) -> None:
    for address in (ALICE, f"{ALICE}:80", f"{ALICE}, {MALLORY}", f"{MALLORY}, {ALICE}"):
        value = f"for={address}" if header == "Forwarded" else address
        assert server.get(MALLORY, token, headers={header: value}).status == 403
        assert server.get(LOCAL, token, headers={header: value}).status == 403


@pytest.mark.trap(37)
def test_no_header_changes_a_caller_s_identity(server: ServerProcess) -> None:
    names = ["Podproof.Identity", "Podproof-Identity", "Remote-User", "Remote_User", "X-Remote-User", "Auth-Type"]
    for value in ("system:serviceaccount:default:alice", "default/alice"):
        assert server.get(ALICE, None, headers=dict.fromkeys(names, value)).status == 401


@pytest.mark.trap(32)
def test_no_response_reaches_another_caller_s_request(server: ServerProcess, cluster_env: ClusterEnv) -> None:
    names = [f"caller{number}" for number in range(20)]
    for number, name in enumerate(names):
        if name not in cluster_env.tokens:
            cluster_env.add_pod(name, f"127.0.1.{number}")

    def get(name: str) -> bool:
        response = server.get(f"127.0.1.{names.index(name)}", cluster_env.tokens[name])
        return (response.status, response.json) == (
            200,
            {"service_account": f"default/{name}", "pod": f"default/{name}-pod"},
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(get, names * 4))


@pytest.mark.trap(33)
def test_the_log_has_the_reason_of_each_denial_and_no_token(
    server: ServerProcess, cluster_env: ClusterEnv, token: str
) -> None:
    server.get(MALLORY, token)
    server.get(ALICE, cluster_env.tokens["alice for carol"])
    log = server.log.read_text()
    assert "wrong-address" in log
    assert "wrong-audience" in log
    assert [name for name, secret in cluster_env.tokens.items() if secret in log or secret.split(".")[1] in log] == []


def assert_denied_over_unix_socket(server: ServerProcess, token: str) -> None:
    for lines in ([], [f"X-Forwarded-For: {ALICE}"]):
        received = server.send_over_unix_socket(raw_request("/whoami", f"Authorization: Bearer {token}", *lines))
        assert status_of(received) == 403
    assert status_of(server.send_over_unix_socket(raw_request("/healthz"))) == 200


@pytest.mark.trap(26)
@pytest.mark.parametrize(
    "server", pairs_in_turn([name for name in SERVERS if "unix:{socket}" in SERVERS[name]]), indirect=True
)
def test_a_caller_over_gunicorn_s_unix_socket_is_denied(server: ServerProcess, token: str) -> None:
    assert_denied_over_unix_socket(server, token)


@pytest.mark.trap(26)
def test_a_caller_over_uvicorn_s_unix_socket_is_denied(cluster_env: ClusterEnv, token: str, tmp_path: Path) -> None:
    with run_server([*UVICORN, "--uds", "{socket}"], tmp_path, **cluster_env.environ) as server:
        assert_denied_over_unix_socket(server, token)


@pytest.mark.trap(23)
def test_an_address_that_uvicorn_took_from_a_header_is_denied(cluster_env: ClusterEnv, tmp_path: Path) -> None:
    with run_server([*UVICORN, "--port", "{port}"], tmp_path, **cluster_env.environ) as server:
        assert server.get(LOCAL, cluster_env.tokens["local"]).status == 200
        for value in (ALICE, f"{ALICE}:4711", f"1.1.1.1, {ALICE}", f"{ALICE}, 127.0.0.1", f"::ffff:{ALICE}"):
            for name in ("alice", "local"):
                assert server.get(LOCAL, cluster_env.tokens[name], headers={"X-Forwarded-For": value}).status == 403
        assert "--no-proxy-headers" in server.log.read_text()


def open_websocket(server: ServerProcess, source: str, token: str | None) -> str:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{server.port}/ws"
    with connect(url, additional_headers=headers, source_address=(source, 0), proxy=None) as websocket:
        return str(websocket.recv())


@pytest.mark.trap(39)
@pytest.mark.parametrize("server", pairs_in_turn(ASGI), indirect=True)
def test_a_websocket_is_opened_for_an_allowed_caller_only(server: ServerProcess, token: str) -> None:
    assert json.loads(open_websocket(server, ALICE, token)) == ALICE_IDENTITY
    for source, credential, status in ((MALLORY, token, 403), (ALICE, "junk", 401), (ALICE, None, 401)):
        with pytest.raises(InvalidStatus) as denied:
            open_websocket(server, source, credential)
        # A server without the denial response extension can only respond with 403.
        assert denied.value.response.status_code in (status, 403)


@pytest.mark.trap(32)
def test_no_response_reaches_another_forked_worker(tmp_path: Path) -> None:
    forking = [
        "--bind",
        "127.0.0.1:{port}",
        "--worker-class",
        "gthread",
        "--threads",
        "4",
        "--workers",
        "3",
        "--preload",
    ]
    # Without TLS, which would detect a connection that two processes share.
    with Cluster(tls=False) as cluster:
        cluster_env = ClusterEnv(cluster)
        addresses = {f"caller{number}": f"127.0.1.{number}" for number in range(40)}
        for name, address in addresses.items():
            cluster_env.add_pod(name, address)

        def get(server: ServerProcess, name: str) -> str:
            response = server.get(addresses[name], cluster_env.tokens[name], "/")
            pod, _, worker = response.body.decode().partition(" in ")
            assert (response.status, pod) == (200, f"default/{name}-pod")
            return worker

        command = [*GUNICORN, *forking, "tests.process.preloaded_app:app"]
        with run_server(command, tmp_path, **cluster_env.environ) as server, ThreadPoolExecutor(16) as threads:
            workers = set(threads.map(partial(get, server), [*addresses] * 10))
        assert len(workers) > 1
