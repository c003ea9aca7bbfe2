"""The same behaviour on every server: Flask's Bob on the WSGI ones, Starlette's on the ASGI ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from podproof.testing import Cluster
from tests.support.server_process import Server, request, serving

ALICE, MALLORY, LOCAL = "127.0.0.2", "127.0.0.3", "127.0.0.1"
KNOWN = {"service_account": "default/alice", "pod": "default/alice-pod"}

FLASK, STARLETTE = "examples.flask_bob:app", "examples.starlette_bob:app"
GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--bind", "unix:{path}"]
UVICORN = ["-m", "uvicorn", "--http", "h11", STARLETTE]
VALIDATED = """
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
    "wsgiref": ["-c", VALIDATED, "{port}"],
}
SERVERS = ASGI | WSGI


@dataclass
class World:
    """A cluster, in which Bob runs, and its pods' tokens for him."""

    cluster: Cluster
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, cluster: Cluster) -> World:
        cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        cluster.grant("default/bob", verbs=["get"], resources=["pods"])
        return cls(cluster)

    def add(self, name: str, address: str) -> None:
        pod = self.cluster.pod(f"default/{name}-pod", service_account=name, addresses=[address])
        self.tokens[name] = pod.token("bob")
        self.tokens[f"{name} for carol"] = pod.token("carol")
        self.tokens[f"{name} expired"] = pod.token("bob", lifetime=-3600)

    @property
    def environ(self) -> dict[str, str]:
        return {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(self.cluster.kubeconfig_for("default/bob"))}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Cluster() as cluster:
        world = World.of(cluster)
        for name, address in (("alice", ALICE), ("mallory", MALLORY), ("local", LOCAL)):
            world.add(name, address)
        yield world


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(SERVERS[request.param], folder, FORWARDED_ALLOW_IPS="", **world.environ) as server:
        yield server


@pytest.fixture
def token(world: World) -> str:
    return world.tokens["alice"]


def status_of(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


@pytest.mark.trap(19, 21)
def test_a_caller_is_known_and_nobody_else_by_its_token(server: Server, token: str) -> None:
    known = server.get(ALICE, token)
    assert (known.status, known.json) == (200, KNOWN)
    assert server.get(MALLORY, token).status == 403
    assert server.get(ALICE, token).status == 200


@pytest.mark.trap(25)
def test_who_cannot_be_known_is_refused_in_the_same_way_everywhere(server: Server, world: World) -> None:
    forged = world.cluster.forge(world.tokens["alice"])
    unbound = world.cluster.service_account("default/alice").token("bob")
    challenge = 'Bearer realm="bob"'
    for token in (world.tokens["alice for carol"], world.tokens["alice expired"], forged, unbound, "junk"):
        refused = server.get(ALICE, token)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, f'{challenge}, error="invalid_token"')
        assert refused.headers["content-type"] == "application/problem+json"
        assert {name: refused.json[name] for name in ("title", "status", "detail")} == {
            "title": "Unauthorized",
            "status": 401,
            "detail": "The token is not accepted here.",
        }
    none = server.get(ALICE, None)
    assert (none.status, none.headers["www-authenticate"]) == (401, challenge)


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
def test_there_is_one_way_to_write_a_credential(server: Server, token: str, lines: list[str], status: int) -> None:
    filled = [line.format(token) for line in lines]
    assert status_of(server.send(ALICE, request("/whoami", *filled))) == status


def test_a_refused_head_has_no_body(server: Server) -> None:
    head, _, body = server.send(ALICE, request("/whoami", method="HEAD")).partition(b"\r\n\r\n")
    assert status_of(head) == 401
    assert body == b""


def test_a_refused_post_is_refused_whatever_it_carries(server: Server) -> None:
    assert server.ask("POST", ALICE, "/echo", body=b"x" * 100_000).status == 401


def test_a_posted_body_reaches_the_app(server: Server, token: str) -> None:
    answer = server.ask("POST", ALICE, "/echo", {"Content-Type": "text/plain"}, token=token, body=b"hello")
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert answer.body == b"hello"


def test_an_exempt_path_is_open(server: Server) -> None:
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
def test_no_other_path_is_taken_for_an_exempt_one(server: Server, path: str) -> None:
    received = server.send(MALLORY, request(path))
    # Python's own http.server makes one slash of two before anybody sees them, and wsgiref tells of no escapes.
    assert status_of(received) == 401 or received.endswith(b"\r\n\r\nok")


@pytest.mark.trap(22)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X_Forwarded_For", "X-Real-IP", "Client-IP"])
def test_a_caller_cannot_say_where_it_is(server: Server, token: str, header: str) -> None:
    for address in (ALICE, f"{ALICE}:80", f"{ALICE}, {MALLORY}", f"{MALLORY}, {ALICE}"):
        value = f"for={address}" if header == "Forwarded" else address
        assert server.get(MALLORY, token, headers={header: value}).status == 403
        assert server.get(LOCAL, token, headers={header: value}).status == 403


@pytest.mark.trap(37)
def test_a_caller_cannot_say_who_it_is(server: Server) -> None:
    names = ["Podproof.Identity", "Podproof-Identity", "Remote-User", "Remote_User", "X-Remote-User", "Auth-Type"]
    for value in ("system:serviceaccount:default:alice", "default/alice"):
        assert server.get(ALICE, None, headers=dict.fromkeys(names, value)).status == 401


@pytest.mark.trap(32)
def test_no_answer_reaches_another_callers_question(server: Server, world: World) -> None:
    names = [f"caller{number}" for number in range(20)]
    for number, name in enumerate(names):
        if name not in world.tokens:
            world.add(name, f"127.0.1.{number}")

    def ask(name: str) -> bool:
        answer = server.get(f"127.0.1.{names.index(name)}", world.tokens[name])
        return (answer.status, answer.json) == (
            200,
            {"service_account": f"default/{name}", "pod": f"default/{name}-pod"},
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, names * 4))


@pytest.mark.trap(33)
def test_the_log_says_why_and_holds_no_token(server: Server, world: World, token: str) -> None:
    server.get(MALLORY, token)
    server.get(ALICE, world.tokens["alice for carol"])
    log = server.log.read_text()
    assert "wrong-address" in log
    assert "wrong-audience" in log
    assert [name for name, secret in world.tokens.items() if secret in log or secret.split(".")[1] in log] == []


def check_unix_socket(server: Server, token: str) -> None:
    for lines in ([], [f"X-Forwarded-For: {ALICE}"]):
        received = server.send_by_unix_socket(request("/whoami", f"Authorization: Bearer {token}", *lines))
        assert status_of(received) == 403
    assert status_of(server.send_by_unix_socket(request("/healthz"))) == 200


@pytest.mark.trap(26)
@pytest.mark.parametrize("server", [name for name in SERVERS if "unix:{path}" in SERVERS[name]], indirect=True)
def test_who_comes_through_gunicorns_unix_socket_does_not_come_in(server: Server, token: str) -> None:
    check_unix_socket(server, token)


@pytest.mark.trap(26)
def test_who_comes_through_uvicorns_unix_socket_does_not_come_in(world: World, token: str, tmp_path: Path) -> None:
    with serving([*UVICORN, "--uds", "{path}"], tmp_path, **world.environ) as server:
        check_unix_socket(server, token)


@pytest.mark.trap(23)
def test_uvicorn_that_believes_a_header_is_noticed(world: World, tmp_path: Path) -> None:
    with serving([*UVICORN, "--port", "{port}"], tmp_path, **world.environ) as server:
        assert server.get(LOCAL, world.tokens["local"]).status == 200
        for value in (ALICE, f"{ALICE}:4711", f"1.1.1.1, {ALICE}", f"{ALICE}, 127.0.0.1", f"::ffff:{ALICE}"):
            for name in ("alice", "local"):
                assert server.get(LOCAL, world.tokens[name], headers={"X-Forwarded-For": value}).status == 403
        assert "--no-proxy-headers" in server.log.read_text()


def open_websocket(server: Server, source: str, token: str | None) -> str:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{server.port}/ws"
    with connect(url, additional_headers=headers, source_address=(source, 0), proxy=None) as websocket:
        return str(websocket.recv())


@pytest.mark.trap(39)
@pytest.mark.parametrize("server", ASGI, indirect=True)
def test_a_websocket_is_for_those_who_are_known(server: Server, token: str) -> None:
    assert json.loads(open_websocket(server, ALICE, token)) == KNOWN
    for source, credential, status in ((MALLORY, token, 403), (ALICE, "junk", 401), (ALICE, None, 401)):
        with pytest.raises(InvalidStatus) as refused:
            open_websocket(server, source, credential)
        # 403 is what a server answers that knows no denial response.
        assert refused.value.response.status_code in (status, 403)


@pytest.mark.trap(32)
def test_no_answer_crosses_over_to_another_forked_worker(tmp_path: Path) -> None:
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
    # Without TLS, which would notice a connection that two processes use.
    with Cluster(tls=False) as cluster:
        world = World.of(cluster)
        addresses = {f"caller{number}": f"127.0.1.{number}" for number in range(40)}
        for name, address in addresses.items():
            world.add(name, address)

        def ask(server: Server, name: str) -> str:
            answer = server.get(addresses[name], world.tokens[name], "/")
            pod, _, worker = answer.body.decode().partition(" in ")
            assert (answer.status, pod) == (200, f"default/{name}-pod")
            return worker

        command = [*GUNICORN, *forking, "tests.process.preloaded_app:app"]
        with serving(command, tmp_path, **world.environ) as server, ThreadPoolExecutor(16) as threads:
            workers = set(threads.map(partial(ask, server), [*addresses] * 10))
        assert len(workers) > 1
