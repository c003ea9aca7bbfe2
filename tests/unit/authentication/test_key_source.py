"""Where signing keys are read from: a file, a URL."""

from __future__ import annotations

import json
import threading
import time as real_time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from podproof._authentication.json_url import MAX_DOCUMENT
from podproof._authentication.key_set import RETRY_INTERVAL, KeySet
from podproof._authentication.key_source import FileKeys, KeySource, URLKeys
from podproof.errors import (
    ConfigurationError,
    Unavailable,
)
from podproof.testing import Cluster
from podproof.testing._emulator.http_server import ClientConnection, LoopbackServer, ServerRequest, ServerResponse
from tests.support.fake_api import Clock
from tests.support.signed_tokens import (
    jwk_of,
    jwks,
)


def test_a_mounted_file_is_read_again_when_it_has_changed(tmp_path: Path, time: Clock) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks(jwk_of("ES256"))))
    source = FileKeys(path)
    key_set = KeySet(source, monotonic=time)
    assert len(key_set.find("ES256", time() + 5)) == 1
    path.write_text(json.dumps(jwks(jwk_of("ES384"))))
    time.passes(RETRY_INTERVAL)
    assert len(key_set.find("ES384", time() + 5)) == 1
    assert key_set.find("ES256", time() + 5) == ()
    assert str(source) == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b" " * (MAX_DOCUMENT + 1), "longer than"),
    ],
)
def test_a_file_without_keys_is_unavailable(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unavailable, match=message):
        FileKeys(path).fetch(0)


@dataclass
class KeyServer:
    """An HTTP server of keys on a loopback address, over TLS with a certificate of the emulated cluster's authority."""

    response: ServerResponse = field(default_factory=lambda: ServerResponse(200, jwks(jwk_of("ES256")), "text/plain"))
    requests: list[ServerRequest] = field(default_factory=list)

    def respond(self, request: ServerRequest) -> ServerResponse:
        self.requests.append(request)
        return self.response


@pytest.fixture
def key_server() -> KeyServer:
    return KeyServer()


@pytest.fixture
def url(key_server: KeyServer) -> Iterator[str]:
    server = LoopbackServer(key_server.respond, None)
    yield f"http://127.0.0.1:{server.port}/jwks?token=s3cret"
    server.stop()


def test_keys_are_read_from_a_url(url: str, key_server: KeyServer, time: Clock) -> None:
    source = URLKeys(url, monotonic=time)
    assert source.fetch(time() + 5) == jwks(jwk_of("ES256"))
    (request,) = key_server.requests
    assert (request.path, request.authorization) == ("/jwks", None)
    assert "s3cret" not in str(source)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (ServerResponse(404, b"gone"), "status 404"),
        (ServerResponse(302, b"", headers={"Location": "/elsewhere"}), "status 302"),
        (ServerResponse(200, b"<html>"), "not a JSON object"),
        (ServerResponse(200, b" " * (MAX_DOCUMENT + 1)), "longer than"),
        (ServerResponse(200, b"", send=lambda client, *_: client.reset()), "failed with ProtocolError"),
    ],
)
def test_a_url_without_keys_is_unavailable(
    url: str, key_server: KeyServer, time: Clock, response: ServerResponse, message: str
) -> None:
    key_server.response = response
    with pytest.raises(Unavailable, match=message):
        URLKeys(url, monotonic=time).fetch(time() + 5)
    assert len(key_server.requests) == 1


def send_for_ever(client: ClientConnection, head: bytes, _: bytes) -> None:
    """Send a byte of the body at a time, until the client has closed the connection."""
    with suppress(OSError):
        client.send(head.replace(b"Content-Length: 0", b"Content-Length: 200000"))
        while True:
            client.send(b" ")
            threading.Event().wait(0.005)


@pytest.mark.trap(47)
def test_a_url_that_sends_a_byte_at_a_time_takes_no_longer_than_the_deadline(url: str, key_server: KeyServer) -> None:
    key_server.response = ServerResponse(200, b"", send=send_for_ever)
    begun = real_time.monotonic()
    with pytest.raises(Unavailable, match="failed with"):
        URLKeys(url).fetch(begun + 0.1)
    assert real_time.monotonic() - begun < 5


def test_with_no_time_left_a_url_is_not_asked(url: str, key_server: KeyServer, time: Clock) -> None:
    with pytest.raises(Unavailable, match="no time left"):
        URLKeys(url, monotonic=time).fetch(time())
    assert key_server.requests == []


@pytest.mark.parametrize("trusted", [True, False])
def test_the_certificate_of_a_key_server_is_verified(
    cluster: Cluster, tmp_path: Path, time: Clock, trusted: bool
) -> None:
    ca_file = tmp_path / "ca.crt"
    ca_file.write_text(cluster.ca_pem)
    source = URLKeys(f"{cluster.url}/version", ca_file=ca_file if trusted else None, monotonic=time)
    with nullcontext() if trusted else pytest.raises(Unavailable, match="SSLError"):
        assert source.fetch(time() + 5)["major"] == "1"


def test_a_missing_file_of_certificate_authorities_is_unavailable(tmp_path: Path, time: Clock) -> None:
    with pytest.raises(Unavailable, match="FileNotFoundError"):
        URLKeys("https://127.0.0.1:1/", ca_file=tmp_path / "none", monotonic=time).fetch(time() + 5)


@pytest.mark.parametrize(
    "url",
    ["https://keys.example/jwks", "https://[::1]/", "http://127.0.0.1:8080/", "http://[::1]/", "http://localhost/"],
)
def test_keys_may_be_read_over_https_or_from_this_host(url: str) -> None:
    source: KeySource = URLKeys(url)
    assert str(source) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "keys.example",
        "http://keys.example/",
        "http://10.0.0.1/",
        "http://127.0.0.1.example/",
        "file:///etc/passwd",
        "https:///jwks",
        "https://user:password@keys.example/",
        "https://keys.example/#a",
        "https://keys.example:99999/",
        "https://[::1/",
        "http://:80/",
    ],
)
def test_any_other_url_is_an_invalid_option(url: str) -> None:
    with pytest.raises(ConfigurationError, match="invalid URL of signing keys") as raised:
        URLKeys(url)
    assert "password" not in str(raised.value)
