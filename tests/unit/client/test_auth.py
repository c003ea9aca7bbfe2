from __future__ import annotations

import io
import logging
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
import requests
from werkzeug.wrappers import Response

from podproof.client import TokenAuth, TokenClient, TokenFile, TokenUnavailable
from tests.support.http_libraries import HTTPX, Call
from tests.unit.client.conftest import HOUR, NOW, mint

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from tests.support.http_libraries import Send
    from tests.unit.client.conftest import Clock, Seen, Server, Volume


def bearer(token: str) -> str:
    return f"Bearer {token}"


@dataclass(frozen=True)
class Rotation:
    old: str
    new: str


@pytest.fixture
def rotation(volume: Volume, bob: Server) -> Rotation:
    """The file holds the old token. Bob refuses it, and by then the file holds the new one, which he accepts."""
    tokens = Rotation(old=volume.rotate(), new=mint(aud="bob", exp=NOW + HOUR, jti="new"))

    def answer(seen: Seen) -> Response:
        if seen.authorization != bearer(tokens.new):
            volume.write(tokens.new)
            return Response("refused", status=401)
        return Response("fine")

    bob.answer = answer
    return tokens


def test_the_token_goes_with_the_request(send: Send, alice: TokenClient, volume: Volume, bob: Server) -> None:
    token = volume.rotate()
    assert send(alice, Call(url=bob.url)) == (200, "fine")
    assert bob.authorizations == [bearer(token)]


def test_headers_hold_the_token_for_any_other_library(alice: TokenClient, volume: Volume) -> None:
    for _ in range(2):
        token = volume.rotate()
        assert alice.headers() == {"Authorization": bearer(token)}


@pytest.mark.trap(41)
def test_each_request_has_the_token_of_its_time(alice: TokenClient, volume: Volume, bob: Server) -> None:
    with alice.session() as http:
        for _ in range(3):
            token = volume.rotate()
            http.get(bob.url, timeout=10)
            assert bob.authorizations[-1] == bearer(token)


@pytest.mark.trap(43)
def test_no_request_leaves_without_a_token(send: Send, alice: TokenClient, bob: Server) -> None:
    with pytest.raises(TokenUnavailable):
        send(alice, Call(url=bob.url))
    assert bob.seen == []


@pytest.mark.trap(44)
def test_an_explicit_authorization_wins(send: Send, alice: TokenClient, rotation: Rotation, bob: Server) -> None:
    call = Call(url=bob.url, headers={"authorization": "Bearer mine"})
    assert send(alice, call) == (401, "refused")
    assert bob.authorizations == ["Bearer mine"]


@pytest.mark.trap(44)
def test_an_explicit_authorization_needs_no_token(send: Send, alice: TokenClient, bob: Server) -> None:
    send(alice, Call(url=bob.url, headers={"Authorization": "Bearer mine"}))
    assert bob.authorizations == ["Bearer mine"]


@pytest.mark.trap(42)
@pytest.mark.parametrize("body", [None, b"", b"once more"])
def test_a_401_is_tried_once_more_with_the_token_that_has_come(
    body: bytes | None, send: Send, alice: TokenClient, rotation: Rotation, bob: Server
) -> None:
    assert send(alice, Call(url=bob.url, method="POST", body=body)) == (200, "fine")
    assert bob.authorizations == [bearer(rotation.old), bearer(rotation.new)]
    assert [seen.body for seen in bob.seen] == [body or b""] * 2


@pytest.mark.trap(42)
def test_a_401_is_final_while_the_token_is_the_same(
    send: Send, alice: TokenClient, volume: Volume, bob: Server
) -> None:
    bob.answer = lambda _: Response("refused", status=401)
    token = volume.rotate()
    assert send(alice, Call(url=bob.url)) == (401, "refused")
    assert bob.authorizations == [bearer(token)]


@pytest.mark.trap(42)
def test_there_is_no_second_retry(send: Send, alice: TokenClient, volume: Volume, bob: Server) -> None:
    def refuse_and_rotate(_: Seen) -> Response:
        volume.rotate()
        return Response("refused", status=401)

    bob.answer = refuse_and_rotate
    volume.rotate()
    assert send(alice, Call(url=bob.url)) == (401, "refused")
    assert len(set(bob.authorizations)) == len(bob.seen) == 2


@pytest.mark.trap(42)
@pytest.mark.parametrize("status", [400, 403, 503])
def test_only_a_401_is_tried_once_more(
    status: int, send: Send, alice: TokenClient, volume: Volume, bob: Server
) -> None:
    def fail_and_rotate(_: Seen) -> Response:
        volume.rotate()
        return Response("no", status=status)

    bob.answer = fail_and_rotate
    volume.rotate()
    assert send(alice, Call(url=bob.url)) == (status, "no")
    assert len(bob.seen) == 1


@pytest.mark.trap(42)
def test_a_streamed_body_is_not_sent_again(send: Send, alice: TokenClient, rotation: Rotation, bob: Server) -> None:
    call = Call(url=bob.url, method="POST", body=b"only once", streamed=True)
    assert send(alice, call) == (401, "refused")
    assert [seen.body for seen in bob.seen] == [b"only once"]


@pytest.mark.trap(42)
def test_a_file_as_body_is_sent_again_from_where_it_stood(alice: TokenClient, rotation: Rotation, bob: Server) -> None:
    body = io.BytesIO(b"head, body")
    body.seek(6)
    with alice.session() as http:
        assert http.post(bob.url, data=body, timeout=10).status_code == 200
    assert [seen.body for seen in bob.seen] == [b"body"] * 2


@pytest.mark.trap(42)
def test_a_401_stands_when_no_token_is_left_by_then(
    send: Send, alice: TokenClient, volume: Volume, clock: Clock, bob: Server
) -> None:
    def outlive(_: Seen) -> Response:
        clock.now += 2 * HOUR
        return Response("refused", status=401)

    bob.answer = outlive
    volume.rotate()
    assert send(alice, Call(url=bob.url)) == (401, "refused")
    assert len(bob.seen) == 1


@pytest.mark.trap(42)
def test_ten_threads_with_a_401_all_take_the_one_new_token(alice: TokenClient, volume: Volume, bob: Server) -> None:
    old, new = volume.rotate(), mint(aud="bob", exp=NOW + HOUR, jti="new")
    all_have_sent = threading.Barrier(10, action=lambda: volume.write(new))

    def answer(seen: Seen) -> Response:
        if seen.authorization == bearer(new):
            return Response("fine")
        all_have_sent.wait(10)
        return Response("refused", status=401)

    bob.answer = answer

    def call(_: int) -> int:
        with alice.session() as http:
            return http.get(bob.url, timeout=20).status_code

    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(call, range(10))) == [200] * 10
    assert sorted(map(str, bob.authorizations)) == sorted([bearer(old)] * 10 + [bearer(new)] * 10)


def test_the_refused_answer_is_in_the_history(alice: TokenClient, rotation: Rotation, bob: Server) -> None:
    with alice.session() as http:
        answer = http.get(bob.url, timeout=10)
    assert [(past.status_code, past.text) for past in answer.history] == [(401, "refused")]
    assert answer.request.headers["Authorization"] == bearer(rotation.new)
    assert answer.history[0].request.headers["Authorization"] == bearer(rotation.old)


def test_a_retry_uses_the_connection_of_the_first_try(
    alice: TokenClient, rotation: Rotation, bob: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="urllib3")
    with alice.session() as http:
        assert http.get(bob.url, timeout=10).status_code == 200
    assert sum("Starting new HTTP connection" in message for message in caplog.messages) == 1


def test_a_response_can_be_pickled(volume: Volume, bob: Server) -> None:
    volume.write(mint(aud="bob", exp=4e9))
    with TokenClient("bob", path=volume.file).session() as http:
        answer = pickle.loads(pickle.dumps(http.get(bob.url, timeout=10)))
    assert answer.text == "fine"


@HTTPX
def test_an_httpx_request_sent_twice_has_the_token_of_its_time(
    library: ModuleType, alice: TokenClient, volume: Volume, bob: Server
) -> None:
    with library.Client(auth=alice.auth) as http:
        request = http.build_request("GET", bob.url)
        tokens = []
        for _ in range(2):
            tokens.append(volume.rotate())
            http.send(request)
    assert bob.authorizations == list(map(bearer, tokens))


@HTTPX
def test_auth_is_a_plain_callable_too(library: ModuleType, volume: Volume, clock: Clock, bob: Server) -> None:
    token = volume.rotate()
    with library.Client(auth=TokenAuth(TokenFile(volume.file, clock=clock))) as http:
        assert http.get(bob.url).status_code == 200
    assert bob.authorizations == [bearer(token)]


def test_auth_asked_for_before_httpx_is_imported_still_sends_the_token(
    alice: TokenClient, volume: Volume, bob: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.delitem(sys.modules, "httpx")
        before.delitem(sys.modules, "httpx2")
        auth = alice.auth
    token = volume.rotate()
    with httpx.Client(auth=auth) as http:
        http.get(bob.url)
    assert bob.authorizations == [bearer(token)]


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    file.write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(file))


@pytest.mark.usefixtures("netrc")
def test_a_netrc_does_not_take_the_place_of_the_token(
    send: Send, alice: TokenClient, volume: Volume, bob: Server
) -> None:
    token = volume.rotate()
    send(alice, Call(url=bob.url))
    assert bob.authorizations == [bearer(token)]


@pytest.mark.usefixtures("netrc")
def test_in_a_session_a_netrc_does_not_take_the_place_of_the_token_in_a_redirect_either(
    alice: TokenClient, volume: Volume, bob: Server, elsewhere: Server
) -> None:
    token = volume.rotate()
    bob.redirect("/there")
    with alice.session() as http:
        http.get(bob.url, timeout=10)
        assert bob.authorizations == [bearer(token)] * 2
        bob.redirect(elsewhere.url)
        http.get(bob.url, timeout=10)
    assert elsewhere.authorizations == [None]


def test_no_log_shows_a_token(
    send: Send, alice: TokenClient, rotation: Rotation, bob: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert send(alice, Call(url=bob.url)) == (200, "fine")
    assert caplog.text
    for token in (rotation.old, rotation.new):
        assert not [part for part in token.split(".")[1:] if part in caplog.text]


def test_no_repr_shows_a_token(alice: TokenClient, volume: Volume) -> None:
    token = volume.rotate()
    file = TokenFile(volume.file)
    assert file.read() == token
    prepared = requests.Request("GET", "http://bob", auth=alice.auth).prepare()
    for shown in (alice, alice.auth, vars(alice.auth), file, vars(file), prepared.hooks):
        assert not [part for part in token.split(".") if part in repr(shown)]
