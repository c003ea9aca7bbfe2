from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from podproof.testing import Cluster
from podproof.testing._emulator.http_server import CONNECTION
from tests.integration.contract import Side, access

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def get(cluster: Cluster) -> Callable[..., requests.Response]:
    """Return a function that asks for a path as the administrator, on a new connection, with a second's patience."""

    def asked(path: str = "/api/v1/namespaces", timeout: float = 1, **how: Any) -> requests.Response:
        with access(str(cluster.kubeconfig)) as way:
            return way.admin.get(cluster.url + path, timeout=timeout, **how)

    return asked


def test_connections_are_refused_until_heal(cluster: Cluster, get: Any) -> None:
    cluster.fail("refuse")
    with pytest.raises(requests.ConnectionError, match="refused"):
        get()
    cluster.fail("refuse")
    cluster.heal()
    assert get().status_code == 200


def test_a_refusing_cluster_can_be_stopped(cluster: Cluster) -> None:
    cluster.fail("refuse")
    cluster.stop()


def test_refuse_closes_open_connections(cluster: Cluster, side: Side) -> None:
    assert side.ask("GET", "/readyz")["status"] == 200
    cluster.fail("refuse")
    with pytest.raises(requests.ConnectionError):
        side.ask("GET", "/readyz")


def test_a_silent_server_sends_no_tls_handshake(cluster: Cluster, get: Any) -> None:
    cluster.fail("silent")
    with pytest.raises(requests.Timeout):
        get(timeout=0.1)
    cluster.heal()
    assert get().status_code == 200


def test_a_hanging_response_ends_with_the_timeout_of_the_client(cluster: Cluster, get: Any) -> None:
    cluster.fail("hang", path="*/namespaces")
    with pytest.raises(requests.ReadTimeout):
        get(timeout=0.1)
    assert get("/readyz").status_code == 200
    assert cluster.count("namespaces") == 1


@pytest.mark.parametrize("kind", ["hang", "silent", "drip-headers", "drip-body"])
@pytest.mark.parametrize("end", ["heal", "stop"])
def test_a_client_is_released_when_the_fault_ends(cluster: Cluster, get: Any, kind: Any, end: str) -> None:
    cluster.fail(kind, interval=3600) if "drip" in kind else cluster.fail(kind)
    others = set(threading.enumerate())  # another cluster may have connections too
    failed: list[object] = []

    def ask() -> None:
        try:
            failed.append(get(timeout=60).status_code)
        except requests.RequestException as error:
            failed.append(error)

    def is_held() -> bool:
        if kind == "silent":
            return any(thread.name == CONNECTION for thread in set(threading.enumerate()) - others)
        return bool(cluster.requests)

    asking = threading.Thread(target=ask)
    asking.start()
    while not is_held():
        time.sleep(0.001)
    getattr(cluster, end)()
    asking.join(60)
    assert len(failed) == 1


@pytest.mark.parametrize(
    ("kind", "seen"), [("close", "without response"), ("reset", "Connection broken"), ("cut", "IncompleteRead")]
)
def test_a_response_breaks_off(cluster: Cluster, get: Any, kind: Any, seen: str) -> None:
    cluster.fail(kind, times=1)
    with pytest.raises(requests.RequestException, match=seen):
        get()
    assert get().status_code == 200


def test_a_reset_is_a_tcp_reset() -> None:
    # Without TLS: Python's ssl module tells a reset as an end.
    with Cluster(tls=False) as cluster:
        cluster.fail("reset")
        host, _, port = cluster.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(b"GET /version HTTP/1.1\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                list(iter(lambda: client.recv(4096), b""))


@pytest.mark.parametrize("kind", ["drip-headers", "drip-body"])
def test_a_response_is_sent_one_byte_at_a_time(cluster: Cluster, get: Any, kind: Any) -> None:
    cluster.fail(kind, interval=0)
    assert get("/version").json()["minor"] == "36"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 429, 500, 502, 503, 504])
def test_a_response_has_the_given_status(cluster: Cluster, get: Any, status: int) -> None:
    cluster.fail(status, retry_after=7)
    response = get()
    assert (response.status_code, response.json()["code"], response.headers["Retry-After"]) == (status, status, "7")
    cluster.heal()
    assert get().status_code == 200


def test_a_response_is_the_html_page_of_a_proxy(cluster: Cluster, get: Any) -> None:
    cluster.fail("html")
    response = get()
    assert (response.status_code, response.headers["Content-Type"]) == (503, "text/html")
    assert "Retry-After" not in response.headers


def test_a_response_has_another_content_type(cluster: Cluster, get: Any) -> None:
    cluster.fail("content-type")
    response = get()
    assert response.headers["Content-Type"] == "text/plain"
    assert response.json()["kind"] == "NamespaceList"


def test_a_response_is_half_of_the_json(cluster: Cluster, get: Any) -> None:
    cluster.fail("truncated")
    with pytest.raises(requests.JSONDecodeError):
        get().json()


def test_a_response_is_ten_megabytes_long(cluster: Cluster, get: Any) -> None:
    cluster.fail("huge")
    assert len(get(timeout=10).content) > 10_000_000


def test_a_fault_can_be_limited_to_paths_and_to_a_number_of_responses(cluster: Cluster, get: Any) -> None:
    cluster.fail(503, path="*/pods", times=2)
    cluster.fail(500, path="/version")
    paths = ("/api/v1/pods", "/version", "/readyz", "/api/v1/pods", "/api/v1/pods")
    assert [get(path).status_code for path in paths] == [503, 500, 200, 503, 200]


def test_the_last_fault_that_matches_applies(cluster: Cluster, get: Any) -> None:
    cluster.fail(503)
    cluster.fail(500, times=1)
    assert [get().status_code for _ in range(2)] == [500, 503]


def test_a_new_certificate_of_the_same_authority_is_trusted(cluster: Cluster, get: Any) -> None:
    def certificate() -> str:
        return ssl.get_server_certificate(("127.0.0.1", int(cluster.url.rpartition(":")[2])), timeout=5)

    before = certificate()
    cluster.fail("new-certificate")
    assert get().status_code == 200
    assert certificate() != before
    cluster.heal()
    assert certificate() == before


@pytest.mark.parametrize(("kind", "why"), [("foreign-certificate", "verify failed"), ("wrong-name", "mismatch")])
def test_a_wrong_certificate_is_not_trusted(cluster: Cluster, get: Any, kind: Any, why: str) -> None:
    cluster.fail(kind)
    with pytest.raises(requests.exceptions.SSLError, match=why):
        get()
    cluster.heal()
    assert get().status_code == 200


def test_a_watch_breaks_off_too(cluster: Cluster, get: Any) -> None:
    cluster.fail("cut")
    with pytest.raises(requests.RequestException):
        get("/api/v1/pods?watch=1")


def test_an_unknown_fault_is_invalid(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="invalid fault 'explode': expected an HTTP status or one of refuse, silent"):
        cluster.fail("explode")  # type: ignore[arg-type]


def test_a_fault_of_the_whole_server_has_no_path_and_no_times(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="a fault of the whole server"):
        cluster.fail("refuse", path="/version")
    with pytest.raises(ValueError, match="a fault of the whole server"):
        cluster.fail("silent", times=1)
