from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from werkzeug.wrappers import Response

from podproof.client import HostNotAllowed, TokenClient
from podproof.errors import ConfigurationError
from tests.support.http_libraries import HTTPX, Call

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import ModuleType

    from tests.support.http_libraries import Send
    from tests.unit.client.conftest import Clock, Seen, Server, Volume


@pytest.mark.trap(44)
def test_in_a_redirect_the_token_stays_on_its_origin(
    send: Send, alice: TokenClient, volume: Volume, bob: Server
) -> None:
    token = volume.rotate()
    bob.redirect("/there")
    assert send(alice, Call(url=bob.url)) == (200, "there")
    assert bob.authorizations == [f"Bearer {token}"] * 2


@pytest.mark.trap(44)
def test_the_token_does_not_follow_a_redirect_to_another_address(
    send: Send, alice: TokenClient, volume: Volume, bob: Server, elsewhere: Server
) -> None:
    token = volume.rotate()
    bob.redirect(elsewhere.url)
    assert send(alice, Call(url=bob.url)) == (200, "fine")
    assert bob.authorizations == [f"Bearer {token}"]
    assert elsewhere.authorizations == [None]


@pytest.mark.trap(44)
def test_the_token_does_not_follow_a_redirect_to_another_name(
    send: Send, alice: TokenClient, volume: Volume, bob: Server
) -> None:
    token = volume.rotate()
    bob.redirect(f"{bob.url.replace('127.0.0.1', 'localhost')}/there")
    assert send(alice, Call(url=bob.url)) == (200, "there")
    assert bob.authorizations == [f"Bearer {token}", None]


@pytest.mark.trap(44)
def test_the_token_does_not_come_back_in_a_redirect_chain(
    send: Send, alice: TokenClient, volume: Volume, bob: Server, elsewhere: Server
) -> None:
    volume.rotate()
    bob.redirect(elsewhere.url)
    elsewhere.redirect(f"{bob.url}/there")
    assert send(alice, Call(url=bob.url)) == (200, "there")
    assert bob.authorizations[1:] == elsewhere.authorizations == [None]


@pytest.mark.trap(44)
def test_the_token_does_not_follow_a_redirect_from_https_to_http(
    send: Send,
    alice: TokenClient,
    volume: Volume,
    secure_bob: Server,
    bob: Server,
) -> None:
    token = volume.rotate()
    secure_bob.redirect(bob.url)
    assert send(alice, Call(url=secure_bob.url, trusted=secure_bob.certificate)) == (200, "fine")
    assert secure_bob.authorizations == [f"Bearer {token}"]
    assert bob.authorizations == [None]


@pytest.mark.trap(44)
def test_a_401_from_another_host_does_not_call_the_token_there(
    send: Send, alice: TokenClient, volume: Volume, bob: Server, elsewhere: Server
) -> None:
    def refuse_and_rotate(_: Seen) -> Response:
        volume.rotate()
        return Response("refused", status=401)

    volume.rotate()
    bob.redirect(elsewhere.url)
    elsewhere.answer = refuse_and_rotate
    assert send(alice, Call(url=bob.url)) == (401, "refused")
    assert elsewhere.authorizations == [None]
    assert len(bob.seen) == 1


@pytest.mark.trap(44)
@HTTPX
def test_the_token_does_not_follow_a_redirect_that_the_app_follows_itself(
    library: ModuleType, alice: TokenClient, volume: Volume, bob: Server, elsewhere: Server
) -> None:
    with library.Client(auth=alice.auth) as http:
        old = volume.rotate()
        bob.redirect("/there")
        near = http.get(bob.url)
        bob.redirect(elsewhere.url)
        far = http.get(bob.url)
        new = volume.rotate()
        http.send(near.next_request)
        http.send(far.next_request)
    assert bob.authorizations == [f"Bearer {old}", f"Bearer {old}", f"Bearer {new}"]
    assert elsewhere.authorizations == [None]


@pytest.mark.trap(42)
def test_after_a_redirect_only_the_refused_request_is_sent_again(
    send: Send, alice: TokenClient, volume: Volume, bob: Server
) -> None:
    def answer(seen: Seen) -> Response:
        if seen.path == "/":
            return Response(status=303, headers={"Location": "/there"})
        if seen.authorization == f"Bearer {old}":
            volume.rotate()
            return Response("refused", status=401)
        return Response("there")

    old = volume.rotate()
    bob.answer = answer
    assert send(alice, Call(url=bob.url, method="POST", body=b"pay")) == (200, "there")
    assert [(seen.method, seen.path) for seen in bob.seen] == [("POST", "/"), ("GET", "/there"), ("GET", "/there")]


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
def test_hosts_lets_the_token_go_to(host: str, url: str, allowed: Callable[..., bool]) -> None:
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
def test_hosts_keeps_the_token_from(host: str, url: str, allowed: Callable[..., bool]) -> None:
    assert not allowed([host], url)


def test_no_hosts_is_no_host(allowed: Callable[..., bool]) -> None:
    assert not allowed([], "http://bob/")


@pytest.mark.trap(44)
def test_a_request_to_another_host_is_not_sent_at_all(
    send: Send, volume: Volume, clock: Clock, bob: Server, elsewhere: Server
) -> None:
    token = volume.rotate()
    client = TokenClient("bob", path=volume.file, hosts=["127.0.0.1", "*.svc:8080"], clock=clock)
    assert send(client, Call(url=bob.url)) == (200, "fine")
    with pytest.raises(HostNotAllowed) as refused:
        send(client, Call(url=f"{elsewhere.url}/path?secret"))
    host = elsewhere.url.removeprefix("http://")
    assert str(refused.value) == f"the token does not go to {host}: the hosts allowed are 127.0.0.1, *.svc:8080"
    assert bob.authorizations == [f"Bearer {token}"]
    assert elsewhere.seen == []


def test_an_explicit_authorization_may_go_to_any_host(
    send: Send, volume: Volume, clock: Clock, elsewhere: Server
) -> None:
    client = TokenClient("bob", path=volume.file, hosts=["bob"], clock=clock)
    send(client, Call(url=elsewhere.url, headers={"Authorization": "Bearer mine"}))
    assert elsewhere.authorizations == ["Bearer mine"]


@pytest.mark.parametrize(
    "host", ["", "http://bob", "bob/", "bob:", "bob:http", "*", "b*b", "*bob", "a@bob", "bob ", "::1"]
)
def test_a_host_that_is_none_is_an_error_that_shows_it(host: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        TokenClient("bob", hosts=[host])
    assert f"hosts: {host!r} is no host" in str(wrong.value)
