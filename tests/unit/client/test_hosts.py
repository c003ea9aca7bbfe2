from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from werkzeug.wrappers import Response

from podproof.client import HostNotAllowed, TokenClient
from podproof.errors import ConfigurationError
from tests.support.http_libraries import HTTPX, OutgoingRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import ModuleType

    from tests.support.fake_api import Clock
    from tests.support.http_libraries import SendRequest
    from tests.unit.client.conftest import ReceivedRequest, RecordingServer, Volume


@pytest.mark.trap(44)
def test_in_a_redirect_the_token_stays_on_its_origin(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    token = volume.rotate()
    server.redirect("/there")
    assert send(token_client, OutgoingRequest(url=server.url)) == (200, "there")
    assert server.authorizations == [f"Bearer {token}"] * 2


@pytest.mark.trap(44)
def test_the_token_does_not_follow_a_redirect_to_another_address(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer, other_server: RecordingServer
) -> None:
    token = volume.rotate()
    server.redirect(other_server.url)
    assert send(token_client, OutgoingRequest(url=server.url)) == (200, "fine")
    assert server.authorizations == [f"Bearer {token}"]
    assert other_server.authorizations == [None]


@pytest.mark.trap(44)
def test_the_token_does_not_follow_a_redirect_to_another_name(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    token = volume.rotate()
    server.redirect(f"{server.url.replace('127.0.0.1', 'localhost')}/there")
    assert send(token_client, OutgoingRequest(url=server.url)) == (200, "there")
    assert server.authorizations == [f"Bearer {token}", None]


@pytest.mark.trap(44)
def test_the_token_does_not_come_back_in_a_redirect_chain(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer, other_server: RecordingServer
) -> None:
    volume.rotate()
    server.redirect(other_server.url)
    other_server.redirect(f"{server.url}/there")
    assert send(token_client, OutgoingRequest(url=server.url)) == (200, "there")
    assert server.authorizations[1:] == other_server.authorizations == [None]


@pytest.mark.trap(44)
def test_the_token_does_not_follow_a_redirect_from_https_to_http(
    send: SendRequest,
    token_client: TokenClient,
    volume: Volume,
    tls_server: RecordingServer,
    server: RecordingServer,
) -> None:
    token = volume.rotate()
    tls_server.redirect(server.url)
    assert send(token_client, OutgoingRequest(url=tls_server.url, trusted=tls_server.certificate)) == (200, "fine")
    assert tls_server.authorizations == [f"Bearer {token}"]
    assert server.authorizations == [None]


@pytest.mark.trap(44)
def test_a_401_from_another_host_does_not_bring_the_token_there(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer, other_server: RecordingServer
) -> None:
    def reject_and_rotate(_: ReceivedRequest) -> Response:
        volume.rotate()
        return Response("rejected", status=401)

    volume.rotate()
    server.redirect(other_server.url)
    other_server.respond = reject_and_rotate
    assert send(token_client, OutgoingRequest(url=server.url)) == (401, "rejected")
    assert other_server.authorizations == [None]
    assert len(server.requests) == 1


@pytest.mark.trap(44)
@HTTPX
def test_the_token_does_not_follow_a_redirect_that_the_app_follows_itself(
    library: ModuleType,
    token_client: TokenClient,
    volume: Volume,
    server: RecordingServer,
    other_server: RecordingServer,
) -> None:
    with library.Client(auth=token_client.auth) as http:
        old = volume.rotate()
        server.redirect("/there")
        near = http.get(server.url)
        server.redirect(other_server.url)
        far = http.get(server.url)
        new = volume.rotate()
        http.send(near.next_request)
        http.send(far.next_request)
    assert server.authorizations == [f"Bearer {old}", f"Bearer {old}", f"Bearer {new}"]
    assert other_server.authorizations == [None]


@pytest.mark.trap(42)
def test_after_a_redirect_only_the_rejected_request_is_sent_again(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    def respond(request: ReceivedRequest) -> Response:
        if request.path == "/":
            return Response(status=303, headers={"Location": "/there"})
        if request.authorization == f"Bearer {old}":
            volume.rotate()
            return Response("rejected", status=401)
        return Response("there")

    old = volume.rotate()
    server.respond = respond
    assert send(token_client, OutgoingRequest(url=server.url, method="POST", body=b"pay")) == (200, "there")
    assert [(request.method, request.path) for request in server.requests] == [
        ("POST", "/"),
        ("GET", "/there"),
        ("GET", "/there"),
    ]


@pytest.fixture
def allowed(volume: Volume, clock: Clock) -> Callable[..., bool]:
    volume.rotate()

    def allowed(hosts: Collection[str], url: str) -> bool:
        client = TokenClient("bob", path=volume.file, hosts=hosts, clock=clock)
        try:
            request = requests.Request("GET", url, auth=client.auth).prepare()
        except HostNotAllowed:
            return False
        assert "Authorization" in request.headers
        return True

    return allowed


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("bob", "http://bob/"),
        ("bob", "https://BOB:8443/path"),
        ("BOB", "http://bob"),
        ("bob:8080", "http://bob:8080/"),
        ("bob:80", "http://bob/"),
        ("bob:443", "https://bob/"),
        ("*.default.svc", "http://bob.default.svc/"),
        ("*.svc", "http://bob.default.svc:8080/"),
        ("*.svc:80", "http://bob.default.svc/"),
        ("10.0.0.1", "http://10.0.0.1:8080/"),
        ("[::1]:8080", "http://[::1]:8080/"),
        ("[FE80::1]", "http://[fe80::1]/"),
        ("bob", "http://carol@bob/"),
    ],
)
def test_the_token_is_sent_to_an_allowed_host(host: str, url: str, allowed: Callable[..., bool]) -> None:
    assert allowed([host], url)
    assert allowed(host, url)
    assert allowed({"carol", host}, url)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("bob", "http://bob.evil/"),
        ("bob", "http://notbob/"),
        ("bob", "http://bob@evil/"),
        ("bob", "http://evil/bob"),
        ("bob", "http://evil/?bob"),
        ("bob", "http://evil/#bob"),
        ("bob", "http://bob:pw@evil/@bob"),
        ("bob", r"http://evil\@bob/"),
        ("bob", "http://bob./"),
        ("bob:80", "https://bob/"),
        ("bob:80", "http://bob:8080/"),
        ("bob:8080", "http://bob/"),
        ("*.default.svc", "http://default.svc/"),
        ("*.default.svc", "http://bobdefault.svc/"),
        ("*.default.svc", "http://bob.default.svc.evil/"),
        ("10.0.0.1", "http://10.0.0.10/"),
        ("10.0.0.1", "http://110.0.0.1/"),
        ("bob", "ftp:bob"),
    ],
)
def test_the_token_is_not_sent_to_a_host_that_is_not_allowed(host: str, url: str, allowed: Callable[..., bool]) -> None:
    assert not allowed([host], url)


def test_an_empty_list_of_hosts_allows_none(allowed: Callable[..., bool]) -> None:
    assert not allowed([], "http://bob/")


@pytest.mark.trap(44)
def test_a_request_to_another_host_is_not_sent_at_all(
    send: SendRequest, volume: Volume, clock: Clock, server: RecordingServer, other_server: RecordingServer
) -> None:
    token = volume.rotate()
    client = TokenClient("bob", path=volume.file, hosts=["127.0.0.1", "*.svc:8080"], clock=clock)
    assert send(client, OutgoingRequest(url=server.url)) == (200, "fine")
    with pytest.raises(HostNotAllowed) as raised:
        send(client, OutgoingRequest(url=f"{other_server.url}/path?secret"))
    host = other_server.url.removeprefix("http://")
    assert str(raised.value) == f"the token is not sent to {host}: the allowed hosts are 127.0.0.1, *.svc:8080"
    assert server.authorizations == [f"Bearer {token}"]
    assert other_server.requests == []


def test_an_explicit_authorization_may_go_to_any_host(
    send: SendRequest, volume: Volume, clock: Clock, other_server: RecordingServer
) -> None:
    client = TokenClient("bob", path=volume.file, hosts=["bob"], clock=clock)
    send(client, OutgoingRequest(url=other_server.url, headers={"Authorization": "Bearer mine"}))
    assert other_server.authorizations == ["Bearer mine"]


@pytest.mark.parametrize(
    "host", ["", "http://bob", "bob/", "bob:", "bob:http", "*", "b*b", "*bob", "a@bob", "bob ", "::1"]
)
def test_an_invalid_host_is_an_error_that_shows_it(host: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        TokenClient("bob", hosts=[host])
    assert f"invalid hosts entry {host!r}: expected a name" in str(raised.value)
