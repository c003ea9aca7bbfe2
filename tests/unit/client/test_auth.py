from __future__ import annotations

import copy
import io
import logging
import pickle
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
import requests
from werkzeug.wrappers import Response

from podproof.client import HostNotAllowed, TokenAuth, TokenClient, TokenFile, TokenUnavailable
from podproof.errors import ConfigurationError
from tests.support.fake_api import NOW
from tests.support.http_libraries import HTTPX, OutgoingRequest
from tests.unit.client.conftest import HOUR, mint

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from tests.support.fake_api import Clock
    from tests.support.http_libraries import SendRequest
    from tests.unit.client.conftest import ReceivedRequest, RecordingServer, Volume


def bearer(token: str) -> str:
    return f"Bearer {token}"


@dataclass(frozen=True)
class Rotation:
    old: str
    new: str


@pytest.fixture
def rotation(volume: Volume, server: RecordingServer) -> Rotation:
    """Put a token in the file that the server rejects, and while it does, the new one that it accepts."""
    tokens = Rotation(old=volume.rotate(), new=mint(aud="bob", exp=NOW + HOUR, jti="new"))

    def respond(request: ReceivedRequest) -> Response:
        if request.authorization != bearer(tokens.new):
            volume.write(tokens.new)
            return Response("rejected", status=401)
        return Response("fine")

    server.respond = respond
    return tokens


def test_the_token_goes_with_the_request(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    token = volume.rotate()
    assert send(token_client, OutgoingRequest(url=server.url)) == (200, "fine")
    assert server.authorizations == [bearer(token)]


def test_headers_hold_the_token_for_any_other_library(token_client: TokenClient, volume: Volume) -> None:
    for _ in range(2):
        token = volume.rotate()
        assert token_client.headers() == {"Authorization": bearer(token)}


@pytest.mark.trap(41)
def test_each_request_has_the_current_token(token_client: TokenClient, volume: Volume, server: RecordingServer) -> None:
    with token_client.session() as http:
        for _ in range(3):
            token = volume.rotate()
            http.get(server.url, timeout=10)
            assert server.authorizations[-1] == bearer(token)


@pytest.mark.trap(43)
def test_a_request_is_never_sent_without_a_token(
    send: SendRequest, token_client: TokenClient, server: RecordingServer
) -> None:
    with pytest.raises(TokenUnavailable):
        send(token_client, OutgoingRequest(url=server.url))
    assert server.requests == []


@pytest.mark.trap(44)
def test_an_authorization_header_of_the_app_is_kept(
    send: SendRequest, token_client: TokenClient, rotation: Rotation, server: RecordingServer
) -> None:
    request = OutgoingRequest(url=server.url, headers={"authorization": "Bearer mine"})
    assert send(token_client, request) == (401, "rejected")
    assert server.authorizations == ["Bearer mine"]


@pytest.mark.trap(44)
def test_an_authorization_header_of_the_app_needs_no_token(
    send: SendRequest, token_client: TokenClient, server: RecordingServer
) -> None:
    send(token_client, OutgoingRequest(url=server.url, headers={"Authorization": "Bearer mine"}))
    assert server.authorizations == ["Bearer mine"]


@pytest.mark.trap(42)
@pytest.mark.parametrize("body", [None, b"", b"once more"])
def test_a_401_is_retried_once_with_the_new_token(
    body: bytes | None, send: SendRequest, token_client: TokenClient, rotation: Rotation, server: RecordingServer
) -> None:
    assert send(token_client, OutgoingRequest(url=server.url, method="POST", body=body)) == (200, "fine")
    assert server.authorizations == [bearer(rotation.old), bearer(rotation.new)]
    assert [request.body for request in server.requests] == [body or b""] * 2


@pytest.mark.trap(42)
def test_a_401_is_final_while_the_token_is_the_same(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    server.respond = lambda _: Response("rejected", status=401)
    token = volume.rotate()
    assert send(token_client, OutgoingRequest(url=server.url)) == (401, "rejected")
    assert server.authorizations == [bearer(token)]


@pytest.mark.trap(42)
def test_there_is_no_second_retry(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    def reject_and_rotate(_: ReceivedRequest) -> Response:
        volume.rotate()
        return Response("rejected", status=401)

    server.respond = reject_and_rotate
    volume.rotate()
    assert send(token_client, OutgoingRequest(url=server.url)) == (401, "rejected")
    assert len(set(server.authorizations)) == len(server.requests) == 2


@pytest.mark.trap(42)
@pytest.mark.parametrize("status", [400, 403, 503])
def test_only_a_401_is_retried(
    status: int, send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    def fail_and_rotate(_: ReceivedRequest) -> Response:
        volume.rotate()
        return Response("no", status=status)

    server.respond = fail_and_rotate
    volume.rotate()
    assert send(token_client, OutgoingRequest(url=server.url)) == (status, "no")
    assert len(server.requests) == 1


@pytest.mark.trap(42)
def test_a_streamed_body_is_not_sent_again(
    send: SendRequest, token_client: TokenClient, rotation: Rotation, server: RecordingServer
) -> None:
    request = OutgoingRequest(url=server.url, method="POST", body=b"only once", streamed=True)
    assert send(token_client, request) == (401, "rejected")
    assert [request.body for request in server.requests] == [b"only once"]


@pytest.mark.trap(42)
def test_a_file_as_body_is_sent_again_from_its_first_position(
    token_client: TokenClient, rotation: Rotation, server: RecordingServer
) -> None:
    body = io.BytesIO(b"head, body")
    body.seek(6)
    with token_client.session() as http:
        assert http.post(server.url, data=body, timeout=10).status_code == 200
    assert [request.body for request in server.requests] == [b"body"] * 2


@pytest.mark.trap(42)
def test_a_401_is_final_when_the_token_has_expired_by_then(
    send: SendRequest, token_client: TokenClient, volume: Volume, clock: Clock, server: RecordingServer
) -> None:
    def expire_and_reject(_: ReceivedRequest) -> Response:
        clock.passes(2 * HOUR)
        return Response("rejected", status=401)

    server.respond = expire_and_reject
    volume.rotate()
    assert send(token_client, OutgoingRequest(url=server.url)) == (401, "rejected")
    assert len(server.requests) == 1


@pytest.mark.trap(42)
def test_ten_threads_with_a_401_all_retry_with_the_new_token(
    token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    old, new = volume.rotate(), mint(aud="bob", exp=NOW + HOUR, jti="new")
    all_have_sent = threading.Barrier(10, action=lambda: volume.write(new))

    def respond(request: ReceivedRequest) -> Response:
        if request.authorization == bearer(new):
            return Response("fine")
        all_have_sent.wait(10)
        return Response("rejected", status=401)

    server.respond = respond

    def call(_: int) -> int:
        with token_client.session() as http:
            return http.get(server.url, timeout=20).status_code

    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(call, range(10))) == [200] * 10
    assert sorted(map(str, server.authorizations)) == sorted([bearer(old)] * 10 + [bearer(new)] * 10)


def test_the_rejected_response_is_in_the_history(
    token_client: TokenClient, rotation: Rotation, server: RecordingServer
) -> None:
    with token_client.session() as http:
        response = http.get(server.url, timeout=10)
    assert [(past.status_code, past.text) for past in response.history] == [(401, "rejected")]
    assert response.request.headers["Authorization"] == bearer(rotation.new)
    assert response.history[0].request.headers["Authorization"] == bearer(rotation.old)


def test_a_retry_uses_the_connection_of_the_first_try(
    token_client: TokenClient, rotation: Rotation, server: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="urllib3")
    with token_client.session() as http:
        assert http.get(server.url, timeout=10).status_code == 200
    assert sum("Starting new HTTP connection" in message for message in caplog.messages) == 1


def test_a_response_can_be_pickled(volume: Volume, server: RecordingServer) -> None:
    volume.write(mint(aud="bob", exp=4e9))
    with TokenClient("bob", path=volume.file).session() as http:
        response = pickle.loads(pickle.dumps(http.get(server.url, timeout=10)))
    assert response.text == "fine"


@HTTPX
def test_an_httpx_request_sent_twice_has_the_current_token_each_time(
    library: ModuleType, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    with library.Client(auth=token_client.auth) as http:
        request = http.build_request("GET", server.url)
        tokens = []
        for _ in range(2):
            tokens.append(volume.rotate())
            http.send(request)
    assert server.authorizations == list(map(bearer, tokens))


@HTTPX
def test_httpx_accepts_token_auth_as_a_callable(
    library: ModuleType, volume: Volume, clock: Clock, server: RecordingServer
) -> None:
    token = volume.rotate()
    with library.Client(auth=TokenAuth(TokenFile(volume.file, clock=clock))) as http:
        assert http.get(server.url).status_code == 200
    assert server.authorizations == [bearer(token)]


def test_auth_made_before_the_import_of_httpx_still_sends_the_token(
    token_client: TokenClient, volume: Volume, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.delitem(sys.modules, "httpx")
        before.delitem(sys.modules, "httpx2")
        auth = token_client.auth
    token = volume.rotate()
    with httpx.Client(auth=auth) as http:
        http.get(server.url)
    assert server.authorizations == [bearer(token)]


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    file.write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(file))


@pytest.mark.usefixtures("netrc")
def test_a_netrc_does_not_replace_the_token(
    send: SendRequest, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    token = volume.rotate()
    send(token_client, OutgoingRequest(url=server.url))
    assert server.authorizations == [bearer(token)]


@pytest.mark.usefixtures("netrc")
def test_in_a_redirect_of_a_session_a_netrc_does_not_replace_the_token(
    token_client: TokenClient, volume: Volume, server: RecordingServer, other_server: RecordingServer
) -> None:
    token = volume.rotate()
    server.redirect("/there")
    with token_client.session() as http:
        http.get(server.url, timeout=10)
        assert server.authorizations == [bearer(token)] * 2
        server.redirect(other_server.url)
        http.get(server.url, timeout=10)
    assert other_server.authorizations == [None]


def test_no_log_shows_a_token(
    send: SendRequest,
    token_client: TokenClient,
    rotation: Rotation,
    server: RecordingServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")  # the kubernetes package raises its level
    assert send(token_client, OutgoingRequest(url=server.url)) == (200, "fine")
    assert caplog.text
    for token in (rotation.old, rotation.new):
        assert not [part for part in token.split(".")[1:] if part in caplog.text]


def test_no_repr_shows_a_token(token_client: TokenClient, volume: Volume) -> None:
    token = volume.rotate()
    file = TokenFile(volume.file)
    assert file.read() == token
    prepared = requests.Request("GET", "http://bob", auth=token_client.auth).prepare()
    for shown in (token_client, token_client.auth, vars(token_client.auth), file, vars(file), prepared.hooks):
        assert not [part for part in token.split(".") if part in repr(shown)]


def test_an_empty_authorization_header_is_an_error(
    send: SendRequest, token_client: TokenClient, server: RecordingServer
) -> None:
    with pytest.raises(ConfigurationError, match="invalid Authorization header '': expected a value, or no header"):
        send(token_client, OutgoingRequest(url=server.url, headers={"Authorization": ""}))
    assert server.requests == []


def test_requests_accepts_the_client_itself_as_auth(
    token_client: TokenClient, rotation: Rotation, server: RecordingServer
) -> None:
    response = requests.get(server.url, auth=token_client, timeout=10)
    assert response.status_code == 200
    assert server.authorizations == [bearer(rotation.old), bearer(rotation.new)]


@HTTPX
def test_httpx_is_told_to_use_the_auth_of_the_client(
    library: ModuleType, token_client: TokenClient, volume: Volume, server: RecordingServer
) -> None:
    volume.rotate()
    with (
        library.Client(auth=token_client) as http,
        pytest.raises(TypeError, match=re.escape("httpx expects auth=TokenClient(...).auth")),
    ):
        http.get(server.url)
    assert server.requests == []


@HTTPX
def test_auth_none_sends_one_httpx_request_without_a_token(
    library: ModuleType, token_client: TokenClient, server: RecordingServer
) -> None:
    with library.Client(auth=token_client.auth) as http:
        assert http.get(server.url, auth=None).status_code == 200
    assert server.authorizations == [None]


def test_an_unavailable_token_is_an_exception_of_requests_too(
    token_client: TokenClient, server: RecordingServer
) -> None:
    with token_client.session() as http, pytest.raises(requests.RequestException) as raised:
        http.get(server.url, timeout=10)
    assert isinstance(raised.value, TokenUnavailable)
    assert type(raised.value).__name__ == "TokenUnavailable"
    assert "serviceAccountToken" in str(raised.value)
    assert isinstance(raised.value.__cause__, FileNotFoundError)


def test_a_host_that_is_not_allowed_is_an_exception_of_requests_too(volume: Volume, server: RecordingServer) -> None:
    client = TokenClient("bob", path=volume.file, hosts=["bob"])
    with pytest.raises(requests.RequestException) as raised:
        requests.get(server.url, auth=client.auth, timeout=10)
    assert isinstance(raised.value, HostNotAllowed)


def test_an_exception_of_requests_can_be_pickled_and_copied(token_client: TokenClient) -> None:
    with pytest.raises(requests.RequestException) as raised:
        requests.Request("GET", "http://bob", auth=token_client.auth).prepare()
    for copied in (pickle.loads(pickle.dumps(raised.value)), copy.copy(raised.value), copy.deepcopy(raised.value)):
        assert type(copied) is type(raised.value)
        assert copied.args == raised.value.args


@pytest.mark.trap(43)
def test_a_prepared_request_that_was_redirected_elsewhere_can_be_sent_again(
    token_client: TokenClient, volume: Volume, server: RecordingServer, other_server: RecordingServer
) -> None:
    token = volume.rotate()
    server.redirect(other_server.url)
    with requests.Session() as http:
        prepared = requests.Request("GET", server.url, auth=token_client.auth).prepare()
        for _ in range(2):
            http.send(prepared, timeout=10)
    assert server.authorizations == [bearer(token)] * 2
    assert other_server.authorizations == [None] * 2
