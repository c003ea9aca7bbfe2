"""Responses that are read line by line, from the emulated API server and from sockets that misbehave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from errno import ETIMEDOUT
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from kubernetes.client import Configuration
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.exceptions import ReadTimeoutError

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._apiserver.permissions import Permission
from podproof._apiserver.response import ConnectionFailed, LineTooLong, StreamSilent, UnexpectedStatus
from podproof._apiserver.stream import KEEPALIVE, APIStream, _read_piece, set_keepalive
from podproof.errors import Unavailable
from podproof.testing import Cluster

PODS = Permission("list and watch", "", "pods")
WATCH = "/api/v1/pods?watch=1&allowWatchBookmarks=true"
WAIT = 10.0


def client_for(kubeconfig: Path) -> APIServerClient:
    return APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(kubeconfig)}))


@pytest.fixture
def client(cluster: Cluster) -> Iterator[APIServerClient]:
    client = client_for(cluster.kubeconfig)
    yield client
    client.close()


@pytest.fixture
def stream(client: APIServerClient) -> Iterator[APIStream]:
    stream = client.stream(read_timeout=WAIT)
    yield stream
    stream.close()


def read_all(stream: APIStream, path: str = "/version", permission: Permission = PODS, **more: int) -> list[bytes]:
    with stream.get(path, permission, **more) as lines:
        return list(lines)


class Script:
    """A server of plain HTTP that sends these bytes to each request, in pieces, and then closes or keeps quiet."""

    def __init__(self, *pieces: bytes, headers: str = "Content-Type: application/json", hold: bool = False) -> None:
        self.over = threading.Event()
        self.connections: set[object] = set()
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                script.connections.add(self.client_address)
                self.wfile.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()
                if hold:
                    script.over.wait(WAIT)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def load(self, configuration: Configuration) -> None:
        configuration.host = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., APIStream]]:
    """Return what makes a stream from a server that sends these bytes."""
    made: list[Script] = []

    def serve(*pieces: bytes, read_timeout: float = WAIT, **more: object) -> APIStream:
        made.append(Script(*pieces, **more))  # type: ignore[arg-type]  # as in Script
        return APIServerClient(load=made[-1].load).stream(read_timeout=read_timeout)

    yield serve
    for script in made:
        script.stop()


def test_lines_arrive_one_by_one(cluster: Cluster, stream: APIStream) -> None:
    cluster.pod("default/alice")
    with stream.get(WATCH, PODS) as lines:
        assert json.loads(next(lines))["object"]["metadata"]["name"] == "alice"
        cluster.pod("default/bob")
        assert json.loads(next(lines))["object"]["metadata"]["name"] == "bob"


def test_one_connection_serves_all_responses_that_are_read_to_their_ends(cluster: Cluster, stream: APIStream) -> None:
    read_all(stream)
    first = stream._socket
    assert read_all(stream) == read_all(stream)
    assert stream._socket is first


def test_a_response_that_is_left_early_costs_its_connection(cluster: Cluster, stream: APIStream) -> None:
    cluster.pod("default/alice")
    with stream.get(WATCH, PODS) as lines:
        next(lines)
        first = stream._socket
    read_all(stream)
    assert stream._socket is not first


def test_nothing_is_connected_before_the_first_get(cluster: Cluster, client: APIServerClient) -> None:
    client.stream(read_timeout=WAIT).close()
    assert cluster.requests == []


@pytest.mark.parametrize(
    "pieces", [[b'{"a": 1}\n{"b"', b": 2}\n"], [b'{"a": 1}\n', b'{"b": 2}'], [b'{"a": 1}\n{"b": 2}']]
)
def test_lines_are_put_together_from_pieces(serve: Callable[..., APIStream], pieces: list[bytes]) -> None:
    assert read_all(serve(*pieces)) == [b'{"a": 1}', b'{"b": 2}']


@pytest.mark.parametrize("pieces", [[b"x" * 11 + b"\n"], [b"x" * 11], [b"x" * 6, b"x" * 6 + b"\n"]])
def test_a_line_beyond_the_bound_is_a_failure(serve: Callable[..., APIStream], pieces: list[bytes]) -> None:
    with pytest.raises(LineTooLong, match="longer than 10 bytes"):
        read_all(serve(*pieces), max_line=10)


def test_lines_at_the_bound_are_read(serve: Callable[..., APIStream]) -> None:
    assert read_all(serve(b"x" * 10 + b"\n" + b"y" * 10), max_line=10) == [b"x" * 10, b"y" * 10]


def test_a_stream_that_ends_within_a_chunk_has_failed(serve: Callable[..., APIStream]) -> None:
    headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked"
    with pytest.raises(ConnectionFailed, match="connection failed with ProtocolError"):
        read_all(serve(b'14\r\n{"a": 1}\n', headers=headers))


def test_a_silent_stream_is_noticed_after_the_read_timeout(serve: Callable[..., APIStream]) -> None:
    with serve(b"{}\n", hold=True, read_timeout=0.1).get("/", PODS) as lines:
        assert next(lines) == b"{}"
        with pytest.raises(StreamSilent):
            next(lines)


def test_a_response_that_does_not_begin_is_a_failure(cluster: Cluster, client: APIServerClient) -> None:
    cluster.fail("hang")
    with pytest.raises(ConnectionFailed, match="ReadTimeoutError"):
        read_all(client.stream(read_timeout=0.1))


def test_another_content_type_is_not_from_an_api_server(serve: Callable[..., APIStream]) -> None:
    with pytest.raises(ConnectionFailed, match="status 200 without JSON"):
        read_all(serve(b"<html>", headers="Content-Type: text/html"))


def test_a_refused_connection_is_a_failure(cluster: Cluster, stream: APIStream) -> None:
    cluster.fail("refuse")
    with pytest.raises(ConnectionFailed, match="NewConnectionError"):
        read_all(stream)


@pytest.mark.parametrize(("status", "retry_after"), [(410, None), (429, 7), (500, None), (503, 1)])
def test_other_statuses_are_raised(cluster: Cluster, stream: APIStream, status: int, retry_after: int | None) -> None:
    cluster.fail(status, retry_after=retry_after)
    with pytest.raises(UnexpectedStatus, match=f"status {status}") as raised:
        read_all(stream)
    assert (raised.value.status, raised.value.retry_after) == (status, retry_after)
    cluster.heal()
    assert read_all(stream)


@pytest.mark.trap(8)
@pytest.mark.parametrize("status", [401, 403])
def test_our_credential_is_loaded_anew_once(cluster: Cluster, stream: APIStream, status: int) -> None:
    cluster.fail(status, times=1)
    assert read_all(stream)
    assert len(cluster.requests) == 2


@pytest.mark.trap(8)
def test_a_rejected_credential_is_named(cluster: Cluster, stream: APIStream) -> None:
    cluster.fail(401)
    with pytest.raises(Unavailable, match=r"does not accept our own credential \(401\)"):
        read_all(stream)


@pytest.mark.trap(13)
@pytest.mark.parametrize(
    ("namespace", "words"),
    [
        ("", r"forbids us to list and watch pods \(403\): .* needs a ClusterRole with it, bound by a ClusterRoleBind"),
        ("shop", r"list and watch pods in namespace shop \(403\): .* a Role in that namespace or .* RoleBinding there"),
    ],
)
def test_a_missing_permission_is_named(cluster: Cluster, namespace: str, words: str) -> None:
    stream = client_for(cluster.kubeconfig_for("default/bob")).stream(read_timeout=WAIT)
    with pytest.raises(Unavailable, match=words):
        read_all(stream, "/api/v1/pods", PODS._replace(namespace=namespace))
    stream.close()


def test_close_ends_a_read_in_another_thread(cluster: Cluster, stream: APIStream) -> None:
    reading = threading.Event()
    failures: list[ConnectionFailed] = []

    def read() -> None:
        with stream.get(WATCH, PODS) as lines:
            reading.set()
            try:
                list(lines)
            except ConnectionFailed as failure:
                failures.append(failure)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(WAIT)
    stream.close()
    thread.join(WAIT)
    assert len(failures) == 1
    with pytest.raises(ConnectionFailed, match="the stream is closed"):
        read_all(stream)


def test_close_ends_a_get_that_waits_for_its_response(cluster: Cluster, stream: APIStream) -> None:
    cluster.fail("hang")
    failures: list[ConnectionFailed] = []

    def read() -> None:
        try:
            read_all(stream)
        except ConnectionFailed as failure:
            failures.append(failure)

    thread = threading.Thread(target=read)
    thread.start()
    while not cluster.requests:
        thread.join(0.01)
    stream.close()
    thread.join(WAIT)
    assert len(failures) == 1


def test_a_connection_that_is_made_after_close_is_shut_down(cluster: Cluster, stream: APIStream) -> None:
    stream.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream._attach(ours)
        assert theirs.recv(1) == b""


def test_dead_connections_are_probed_for(cluster: Cluster, stream: APIStream) -> None:
    read_all(stream)
    used = stream._socket
    assert used is not None
    assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    idle, interval, count, timeout = (used.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names)
    assert idle + count * interval <= 15
    # The end comes with a probe, not with the timeout (tests/process/test_dead_connections.py sees both).
    assert idle + ceil((timeout / 1000 - idle) / interval) * interval <= 15


@pytest.mark.parametrize(
    ("cause", "error"),
    [(TimeoutError("timed out"), StreamSilent), (TimeoutError(ETIMEDOUT, "Connection timed out"), ConnectionFailed)],
)
def test_silence_is_told_from_a_connection_that_the_system_has_given_up(
    cause: Exception, error: type[ConnectionFailed]
) -> None:
    def read1(_: int) -> bytes:
        raise ReadTimeoutError(HTTPConnectionPool("a"), "/", "Read timed out.") from cause

    with pytest.raises(error) as raised:
        _read_piece(cast("HTTPResponse", SimpleNamespace(read1=read1)))
    assert type(raised.value) is error


def test_a_system_without_these_options_has_keepalive_alone() -> None:
    with socket.socket() as one:
        before = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        set_keepalive(one, KEEPALIVE, SimpleNamespace(TCP_KEEPINTVL=-1))  # an option that the system then does not know
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == before
