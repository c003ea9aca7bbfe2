"""HTTP_PROXY: a plain-http request never carries the token to a proxy of the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import requests
from werkzeug.wrappers import Response

from podproof._token.proxies import require_no_proxy
from podproof.client import HostNotAllowed, TokenClient
from tests.support.http_libraries import HTTPX, LIBRARIES, OutgoingRequest

if TYPE_CHECKING:
    from types import ModuleType

    from tests.support.http_libraries import SendRequest
    from tests.unit.client.conftest import RecordingServer, Volume

OTHERS = pytest.mark.parametrize("send", [send for name, send in LIBRARIES.items() if name != "session"])


@pytest.fixture(params=["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def proxy(request: pytest.FixtureRequest, other_server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment name the other server as the proxy."""
    monkeypatch.setenv(request.param, other_server.url.replace("http://", "http://user:password@"))


@pytest.mark.trap(63)
@pytest.mark.usefixtures("proxy")
def test_a_session_bypasses_the_proxy(
    token_client: TokenClient, volume: Volume, server: RecordingServer, other_server: RecordingServer
) -> None:
    token = volume.rotate()
    with token_client.session() as http:
        assert http.get(server.url, timeout=10).text == "fine"
        assert http.send(http.prepare_request(requests.Request("GET", server.url)), timeout=10).text == "fine"
        server.redirect("/there")
        assert http.get(server.url, timeout=10).text == "there"
    assert server.authorizations == [f"Bearer {token}"] * 4
    assert other_server.requests == []


@pytest.mark.trap(63)
@OTHERS
@pytest.mark.usefixtures("proxy")
def test_an_auth_that_cannot_bypass_the_proxy_raises(
    send: SendRequest,
    token_client: TokenClient,
    volume: Volume,
    server: RecordingServer,
    other_server: RecordingServer,
) -> None:
    volume.rotate()
    with pytest.raises(HostNotAllowed) as raised:
        send(token_client, OutgoingRequest(url=server.url))
    address = other_server.url.removeprefix("http://")
    assert str(raised.value) == (
        f"the token would be sent unencrypted to the proxy {address} that HTTP_PROXY or ALL_PROXY names: "
        "add 127.0.0.1 to NO_PROXY, use https, or use TokenClient.session(), which bypasses the proxy"
    )
    assert server.requests == other_server.requests == []


@pytest.mark.trap(63)
@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "carol, 127.0.0.1", "*"])
@pytest.mark.usefixtures("proxy")
def test_what_the_error_advises_works(
    no_proxy: str,
    send: SendRequest,
    *,
    token_client: TokenClient,
    volume: Volume,
    server: RecordingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = volume.rotate()
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert send(token_client, OutgoingRequest(url=server.url)) == (200, "fine")
    assert server.authorizations == [f"Bearer {token}"]


@pytest.mark.trap(63)
@pytest.mark.usefixtures("proxy")
def test_a_request_with_an_authorization_header_of_the_app_may_use_the_proxy(
    token_client: TokenClient, server: RecordingServer, other_server: RecordingServer
) -> None:
    headers = {"Authorization": "Bearer mine"}
    requests.get(server.url, auth=token_client.auth, headers=headers, timeout=10)
    assert other_server.authorizations == ["Bearer mine"]


def test_a_session_uses_the_proxies_that_the_app_gives(
    token_client: TokenClient,
    volume: Volume,
    server: RecordingServer,
    other_server: RecordingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    token = volume.rotate()
    with token_client.session() as http:
        http.get(server.url, proxies={"http": other_server.url}, timeout=10)
        http.proxies = {"http": other_server.url, "https": None}  # type: ignore[dict-item]  # which requests allows
        http.get(server.url, timeout=10)
        http.send(http.prepare_request(requests.Request("GET", server.url)), timeout=10)
    assert other_server.authorizations == [f"Bearer {token}"] * 3
    assert server.requests == []


def test_https_of_a_session_uses_the_proxy_which_sees_no_token(
    *,
    token_client: TokenClient,
    volume: Volume,
    tls_server: RecordingServer,
    server: RecordingServer,
    other_server: RecordingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", other_server.url)
    volume.rotate()
    other_server.respond = lambda _: Response(status=403)
    with token_client.session() as http:
        with pytest.raises(requests.exceptions.ProxyError):
            http.get(tls_server.url, timeout=10)
        server.redirect(tls_server.url)
        with pytest.raises(requests.exceptions.ProxyError):
            http.get(server.url, timeout=10)
    assert [(request.method, request.authorization) for request in other_server.requests] == [("CONNECT", None)] * 2
    assert tls_server.requests == []


@pytest.mark.trap(63)
def test_requests_reads_networks_in_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    require_no_proxy("http://10.1.2.3:8080/", for_requests=True)
    with pytest.raises(HostNotAllowed, match="to the proxy proxy:3128 that"):
        require_no_proxy("http://10.1.2.3:8080/", for_requests=False)


@HTTPX
@pytest.mark.trap(63)
@pytest.mark.parametrize(
    "no_proxy",
    ["", "bob", ".bob", "bob:8080", ".bob:8080", "BOB", "b", "localhost", "::1", "http://bob", "*.bob"],
)
@pytest.mark.parametrize(
    "url",
    [
        "http://bob/",
        "http://bob:8080/",
        "http://a.bob/",
        "http://a.bob:8080/",
        "http://notbob/",
        "http://localhost/",
        "http://a.localhost/",
        "http://[::1]:8080/",
    ],
)
def test_no_host_counts_as_bypassed_that_httpx_would_send_to_the_proxy(
    library: ModuleType, no_proxy: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    try:
        require_no_proxy(url, for_requests=False)
    except HostNotAllowed:
        return
    with library.Client() as http:
        assert http._transport_for_url(library.URL(url)) is http._transport


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("bob", "http://bob:8080/"),
        ("bob", "http://a.bob/"),
        (".bob", "http://a.bob/"),
        ("bob:8080", "http://bob:8080/"),
        ("localhost", "http://localhost/"),
        ("::1", "http://[::1]:8080/"),
        ("*", "http://bob/"),
    ],
)
def test_httpx_bypasses_the_proxy_for_the_hosts_of_no_proxy(
    no_proxy: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    require_no_proxy(url, for_requests=False)
    with httpx.Client() as http:
        assert http._transport_for_url(httpx.URL(url)) is http._transport
