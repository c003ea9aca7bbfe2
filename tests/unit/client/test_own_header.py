"""`TokenClient(header=...)`: the token in a header that no library keeps on its origin for us."""

from __future__ import annotations

import pickle
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from werkzeug.wrappers import Response

from podproof.client import HostNotAllowed, TokenClient
from podproof.errors import ConfigurationError
from tests.support.fake_api import NOW
from tests.support.http_libraries import HTTPX, OutgoingRequest
from tests.unit.client.conftest import HOUR, mint, run_recording_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from tests.support.fake_api import Clock
    from tests.support.http_libraries import SendRequest
    from tests.unit.client.conftest import ReceivedRequest, RecordingServer, Volume

HEADER = "X-Pod-Authorization"
PERSON = "Bearer a-person"
NEW = mint(aud="bob", exp=NOW + HOUR, jti="new")


@dataclass(frozen=True)
class Servers:
    """Bob, what is near it, and how each responds: a path `/N` is redirected to the Nth of `hops`."""

    bob: RecordingServer
    port: RecordingServer
    host: RecordingServer
    tls: RecordingServer
    hops: list[str]
    rejects: list[str]

    @property
    def all(self) -> tuple[RecordingServer, ...]:
        return self.bob, self.port, self.host, self.tls

    def received(self) -> list[ReceivedRequest]:
        return [request for server in self.all for request in server.requests]

    def target(self, form: str) -> str:
        """Return a URL from a form such as `{host}/1`."""
        urls = {"bob": self.bob.url, "port": self.port.url, "host": self.host.url, "tls": self.tls.url}
        bare = {f"bare_{name}": url.partition("//")[2] for name, url in urls.items()}
        return form.format_map(urls | bare | {"name": self.bob.url.replace("127.0.0.1", "localhost")})


@pytest.fixture(scope="module")
def running(certificate: tuple[str, str]) -> Iterator[Servers]:
    with (
        run_recording_server("127.0.0.1") as bob,
        run_recording_server("127.0.0.1") as port,
        run_recording_server("127.0.0.2") as host,
        run_recording_server("127.0.0.1", tls=certificate) as tls,
    ):
        yield Servers(bob, port, host, tls, [], [])


@pytest.fixture
def servers(running: Servers, volume: Volume) -> Servers:
    running.hops.clear()
    running.rejects.clear()

    def respond(request: ReceivedRequest) -> Response:
        token = request.headers.get(HEADER, "")
        if token in running.rejects:
            running.rejects.remove(token)
            volume.write(NEW)
            return Response("rejected", status=401)
        number = int(request.path.strip("/") or 0)
        if number >= len(running.hops):
            return Response("there")
        return Response(status=307, headers={"Location": running.target(running.hops[number])})

    for server in running.all:
        server.requests.clear()
        server.respond = respond
    return running


@pytest.fixture
def client(volume: Volume, clock: Clock) -> TokenClient:
    return TokenClient("bob", path=volume.file, header=HEADER, clock=clock)


def own(requests: list[ReceivedRequest]) -> list[str | None]:
    return [request.headers.get(HEADER) for request in requests]


def test_the_token_goes_beside_an_authorization_of_the_app(
    send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    for headers in (None, {"Authorization": PERSON}, {"authorization": PERSON}):
        assert send(client, OutgoingRequest(url=servers.bob.url, headers=headers)) == (200, "there")
    assert own(servers.bob.requests) == [f"Bearer {token}"] * 3
    assert servers.bob.authorizations == [None, PERSON, PERSON]


NEAR = {"with a path": ["/1"], "with a URL": ["{bob}/1"], "relative": ["1"], "twice": ["/1", "{bob}/2"]}
FAR = {
    "to another port": ["{port}/1"],
    "to another host": ["{host}/1"],
    "to another name": ["{name}/1"],
    "to https on another port": ["{tls}/1"],
    "without a scheme": ["//{bare_host}/1"],
    "with our host as a user": ["http://{bare_bob}@{bare_host}/1"],
    "with our host in the path": ["{host}/1?{bob}"],
    "nearby first": ["/1", "{host}/2"],
    "and back": ["{host}/1", "{bob}/2"],
    "and further": ["{host}/1", "{port}/2", "{bob}/3", "/4"],
}
# Libraries read these in different ways: as a path, as another host, or not at all.
ODD = ["///{bare_host}/1", "/\\{bare_host}/1", "/\t/{bare_host}/1", "http://{bare_host}\\@{bare_bob}/1"]


@pytest.mark.trap(44)
@pytest.mark.parametrize("hops", NEAR.values(), ids=NEAR)
def test_in_a_redirect_on_its_origin_the_token_is_kept(
    hops: list[str], send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.hops.extend(hops)
    request = OutgoingRequest(url=servers.bob.url, headers={"Authorization": PERSON})
    assert send(client, request) == (200, "there")
    assert own(servers.bob.requests) == [f"Bearer {token}"] * (1 + len(hops))
    assert servers.bob.authorizations == [PERSON] * (1 + len(hops))


@pytest.mark.trap(44)
@pytest.mark.parametrize("hops", FAR.values(), ids=FAR)
def test_the_token_follows_no_redirect_elsewhere(
    hops: list[str], send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.hops.extend(hops)
    assert send(client, person_s_request(servers)) == (200, "there")
    assert_stays_at_bob(servers, {token})
    near = 2 if hops[0] == "/1" else 1
    assert own(servers.bob.requests[:near]) == [f"Bearer {token}"] * near
    assert set(own(servers.bob.requests[near:])) <= {None}


@pytest.mark.trap(44)
@pytest.mark.parametrize("hops", [FAR["to another host"], FAR["to another port"], FAR["and back"]])
def test_after_a_retry_too_the_token_follows_no_redirect_elsewhere(
    hops: list[str], send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.hops.extend(hops)
    servers.rejects.append(f"Bearer {token}")
    assert send(client, person_s_request(servers)) == (200, "there")
    assert_stays_at_bob(servers, {token, NEW})
    assert own(servers.bob.requests[:2]) == [f"Bearer {token}", f"Bearer {NEW}"]
    assert set(own(servers.bob.requests[2:])) <= {None}


@pytest.mark.trap(44)
@pytest.mark.parametrize("hop", ODD)
def test_the_token_reaches_no_other_host_by_an_odd_redirect(
    hop: str, send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.hops.append(hop)
    with suppress(requests.RequestException, httpx.HTTPError, httpx2.HTTPError, httpx.InvalidURL, httpx2.InvalidURL):
        send(client, OutgoingRequest(url=servers.bob.url))
    assert servers.bob.requests
    assert_stays_at_bob(servers, {token})


@pytest.mark.trap(44)
def test_a_401_from_another_host_does_not_bring_the_token_there(
    send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.hops.append("{host}/1")

    def reject(_: ReceivedRequest) -> Response:
        volume.write(NEW)
        return Response("rejected", status=401)

    servers.host.respond = reject
    assert send(client, OutgoingRequest(url=servers.bob.url)) == (401, "rejected")
    assert_stays_at_bob(servers, {token, NEW})
    assert len(servers.host.requests) == 1


@pytest.mark.trap(42)
def test_after_a_redirect_on_its_origin_a_401_is_retried(
    send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.hops.append("/1")
    near = servers.bob.respond

    def respond(request: ReceivedRequest) -> Response:
        if request.path == "/1" and request.headers[HEADER] == f"Bearer {token}":
            volume.write(NEW)
            return Response("rejected", status=401)
        return near(request)

    servers.bob.respond = respond
    assert send(client, OutgoingRequest(url=servers.bob.url)) == (200, "there")
    assert own(servers.bob.requests) == [f"Bearer {token}"] * 2 + [f"Bearer {NEW}"]


@pytest.mark.trap(44)
@HTTPX
def test_the_token_does_not_follow_a_redirect_that_the_app_follows_itself(
    library: ModuleType, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    old = volume.rotate()
    servers.hops.extend(["/1", "{host}/2"])
    with library.Client(auth=client.auth) as http:
        near = http.get(servers.bob.url)
        far = http.get(f"{servers.bob.url}/1")
        new = volume.rotate()
        http.send(far.next_request)
        http.send(near.next_request)
        http.send(near.next_request)
    assert_stays_at_bob(servers, {old, new})
    assert own(servers.bob.requests) == [f"Bearer {old}"] * 2 + [f"Bearer {new}"] * 2


def with_auth(client: TokenClient) -> requests.Session:
    session = requests.Session()
    session.auth = client.auth
    return session


@pytest.mark.trap(44)
@pytest.mark.parametrize("start", [TokenClient.session, with_auth], ids=["session", "requests"])
def test_the_token_is_not_on_the_next_request_of_a_redirect_that_is_not_followed(
    start: Callable[[TokenClient], requests.Session], client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.hops.extend(["/1", "{host}/2"])
    with start(client) as http:
        for path in ("", "/1"):
            response = http.get(servers.bob.url + path, allow_redirects=False, timeout=10)
            assert response.next is not None
            http.send(response.next, allow_redirects=False)
    assert_stays_at_bob(servers, {token})
    assert own(servers.bob.requests) == [f"Bearer {token}"] * 3


def test_a_response_after_a_redirect_can_be_pickled(volume: Volume, servers: Servers) -> None:
    volume.write(mint(aud="bob", exp=4e9))
    servers.hops.append("{host}/1")
    auth = TokenClient("bob", path=volume.file, header=HEADER).auth
    response = requests.get(servers.bob.url, auth=auth, timeout=10)
    assert pickle.loads(pickle.dumps(response)).text == "there"


@pytest.mark.trap(44)
def test_urllib3_takes_the_header_off_if_it_is_told_to(client: TokenClient, volume: Volume, servers: Servers) -> None:
    token = volume.rotate()
    servers.hops.append("{host}/1")
    retries = Retry(remove_headers_on_redirect=[*Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT, HEADER])
    headers = {**client.headers(), "Authorization": PERSON}
    # Those of the PoolManager are not used for redirects before urllib3 2.5 (CVE-2025-50181).
    with urllib3.PoolManager() as http:
        assert http.request("GET", servers.bob.url, headers=headers, retries=retries).status == 200
    assert_stays_at_bob(servers, {token})
    assert own(servers.bob.requests) == [f"Bearer {token}"]


class ToHttps(HTTPAdapter):
    """Redirects http to https, and responds with the token that comes there."""

    def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> requests.Response:
        response = requests.Response()
        response.request, response.url = request, str(request.url)
        response.status_code = 307 if response.url.startswith("http:") else 200
        response.headers["Location"] = "https://bob/"
        response.raw = BytesIO(request.headers.get(HEADER, "none").encode())
        return response


@pytest.mark.trap(44)
@pytest.mark.parametrize(("hosts", "is_kept"), [(None, True), (["bob"], True), (["bob:80", "carol:443"], False)])
@pytest.mark.parametrize("url", ["http://bob/", "http://bob:80/path"])
def test_the_token_goes_on_to_https_on_the_standard_ports_if_that_is_allowed(
    url: str, hosts: list[str] | None, is_kept: bool, volume: Volume, clock: Clock
) -> None:
    token = volume.rotate()
    client = TokenClient("bob", path=volume.file, header=HEADER, hosts=hosts, clock=clock)
    for session in (client.session(), with_auth(client)):
        for scheme in ("http://", "https://"):
            session.mount(scheme, ToHttps())
        assert session.get(url, timeout=10).text == (f"Bearer {token}" if is_kept else "none")


@pytest.mark.trap(42)
@pytest.mark.parametrize("body", [b"once more", None])
def test_a_401_is_retried_once_with_the_new_token(
    body: bytes | None, send: SendRequest, client: TokenClient, volume: Volume, servers: Servers
) -> None:
    token = volume.rotate()
    servers.rejects.append(f"Bearer {token}")
    request = OutgoingRequest(url=servers.bob.url, method="POST", body=body, headers={"Authorization": PERSON})
    assert send(client, request) == (200, "there")
    assert own(servers.bob.requests) == [f"Bearer {token}", f"Bearer {NEW}"]
    assert servers.bob.authorizations == [PERSON] * 2
    assert [request.body for request in servers.bob.requests] == [body or b""] * 2


def test_a_header_of_this_name_that_the_app_sets_is_kept(
    send: SendRequest, client: TokenClient, servers: Servers
) -> None:
    send(client, OutgoingRequest(url=servers.bob.url, headers={HEADER.lower(): "Bearer mine"}))
    assert own(servers.bob.requests) == ["Bearer mine"]


def test_an_empty_header_of_this_name_is_an_error(send: SendRequest, client: TokenClient, servers: Servers) -> None:
    with pytest.raises(ConfigurationError, match="invalid X-Pod-Authorization header '': expected a value"):
        send(client, OutgoingRequest(url=servers.bob.url, headers={HEADER: ""}))
    assert servers.received() == []


def test_a_request_to_a_host_that_is_not_allowed_is_not_sent(
    send: SendRequest, volume: Volume, clock: Clock, servers: Servers
) -> None:
    volume.rotate()
    client = TokenClient("bob", path=volume.file, header=HEADER, hosts=["bob"], clock=clock)
    with pytest.raises(HostNotAllowed):
        send(client, OutgoingRequest(url=servers.bob.url))
    assert servers.received() == []


def test_the_token_is_in_the_headers_for_any_other_library(client: TokenClient, volume: Volume) -> None:
    token = volume.rotate()
    assert client.headers() == {HEADER: f"Bearer {token}"}


def test_a_session_leaves_its_auth_to_the_app(client: TokenClient, volume: Volume, servers: Servers) -> None:
    token = volume.rotate()
    with pickle.loads(pickle.dumps(client.session())) as http:
        http.auth = ("alice", "password")
        http.get(servers.bob.url, timeout=10)
        http.get(servers.bob.url, auth=("bob", "password"), timeout=10)
    assert own(servers.bob.requests) == [f"Bearer {token}"] * 2
    assert len(set(servers.bob.authorizations)) == 2
    assert None not in servers.bob.authorizations


def test_a_session_takes_a_netrc_for_authorization_alone(
    client: TokenClient, volume: Volume, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    token = volume.rotate()
    servers.hops.append("{host}/1")
    with client.session() as http:
        http.get(servers.bob.url, timeout=10)
    assert own(servers.received()) == [f"Bearer {token}", None]
    assert [str(request.authorization)[:6] for request in servers.received()] == ["Basic "] * 2


@HTTPX
def test_a_version_of_httpx_that_would_take_the_token_along_is_not_used(
    library: ModuleType, client: TokenClient, volume: Volume, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    volume.rotate()
    monkeypatch.setattr(library.Headers, "pop", lambda *_: None)
    with library.Client(auth=client.auth) as http, pytest.raises(ConfigurationError, match="this version of httpx"):
        http.get(servers.bob.url)
    assert servers.received() == []


@HTTPX
def test_no_repr_of_httpx_shows_the_token(library: ModuleType, client: TokenClient, volume: Volume) -> None:
    token = volume.rotate()
    request = library.Request("GET", "http://bob")
    next(client.auth.auth_flow(request))
    assert (HEADER.encode(), f"Bearer {token}".encode()) in request.headers.raw
    assert token not in repr(request.headers)


@pytest.mark.parametrize("header", ["", "Host", "X_Pod", "Cookie", "X-Forwarded-For", "a b", "X-Pod:", None, 7])
def test_an_invalid_header_is_an_error_that_shows_it(header: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        TokenClient("bob", header=header)
    assert str(raised.value).startswith(f"invalid header {header!r}: expected a header that has no meaning yet")


def person_s_request(servers: Servers) -> OutgoingRequest:
    return OutgoingRequest(url=servers.bob.url, headers={"Authorization": PERSON}, trusted=servers.tls.certificate)


def assert_stays_at_bob(servers: Servers, tokens: set[str]) -> None:
    """Bob alone has seen a token, and the app's own Authorization is where the libraries bring it."""
    for server in (servers.port, servers.host, servers.tls):
        for request in server.requests:
            assert not [value for value in request.headers.values() if any(token in value for token in tokens)]
            assert request.authorization is None
