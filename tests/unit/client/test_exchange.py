"""`TokenClient(exchange=...)`: a pod's token is traded, and what is issued goes with requests."""

from __future__ import annotations

import copy
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import requests
import trio
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from podproof._token.exchanged_token import MIN_AGE, RETRY_INTERVAL
from podproof._token.token_endpoint import MAX_RESPONSE, RENEWED_AT
from podproof.client import Exchange, TokenClient, TokenUnavailable
from podproof.errors import ConfigurationError, InvalidProof, NonceNeeded
from podproof.exchange.dpop import DPoPVerifier
from podproof.exchange.nonces import Nonces
from tests.support.fake_api import Clock
from tests.support.http_libraries import OutgoingRequest, SendRequest
from tests.unit.client.conftest import QuietHandler, Volume


@dataclass
class World:
    """A token endpoint at `/token`, and a service at every other path, which accepts the newest token alone."""

    clock: Clock
    url: str = ""
    trades: list[dict[str, str]] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)
    lifetime: float = 300
    failure: Response | None = None
    document: Callable[[dict[str, Any]], Any] = lambda document: document
    exchange_nonces: Nonces | None = None
    next_nonce: str | None = None
    service_nonces: Nonces | None = None
    header: str = "HTTP_AUTHORIZATION"
    trading: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        now = self.clock
        self.replays = DPoPVerifier(now=now)

    @property
    def newest(self) -> str:
        return f"issued-{len(self.trades)}"

    def app(self, environ: dict[str, Any], start_response: Any) -> Any:
        endpoint = environ["PATH_INFO"] == "/token"
        response = self.trade(environ) if endpoint else self.serve(environ)
        return response(environ, start_response)

    def proof_of(self, environ: dict[str, Any], nonces: Nonces | None, token: str | None = None) -> str | None:
        """Return the nonce that is needed, None if the proof is right. Raises InvalidProof."""
        url = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}"
        verifier = DPoPVerifier(nonces=nonces, now=self.clock)
        verifier._replays = self.replays._replays
        try:
            verifier.verify([environ["HTTP_DPOP"]], method=environ["REQUEST_METHOD"], uris=[url], access_token=token)
        except NonceNeeded as needed:
            return needed.nonce
        return None

    def trade(self, environ: dict[str, Any]) -> Response:
        form = {
            name: values[0]
            for name, values in parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()).items()
        }
        self.trading()
        if self.failure is not None:
            return self.failure
        if "HTTP_DPOP" in environ and (nonce := self.proof_of(environ, self.exchange_nonces)):
            return Response(json.dumps({"error": "use_dpop_nonce"}), status=400, headers={"DPoP-Nonce": nonce})
        self.trades.append(form)
        kind = "DPoP" if "HTTP_DPOP" in environ else "Bearer"
        document = {"access_token": self.newest, "token_type": kind, "expires_in": self.lifetime}
        headers = {"DPoP-Nonce": self.next_nonce} if self.next_nonce else {}
        return Response(json.dumps(self.document(document)), headers=headers)

    def serve(self, environ: dict[str, Any]) -> Response:
        scheme, _, token = environ.get(self.header, "").partition(" ")
        if environ["PATH_INFO"] == "/moved":
            return Response(status=307, headers={"Location": "/there"})
        status, headers = 200 if token == self.newest else 401, {}
        if status == 200 and scheme == "DPoP":
            try:
                nonce = self.proof_of(environ, self.service_nonces, token)
            except InvalidProof:
                status = 401
            else:
                if nonce:
                    status, headers = 401, {"DPoP-Nonce": nonce}
        self.calls.append((environ["PATH_INFO"], status))
        return Response("fine", status=status, headers=headers)


@pytest.fixture
def world(clock: Clock) -> Iterator[World]:
    world = World(clock)
    server = make_server("127.0.0.1", 0, world.app, threaded=True, request_handler=QuietHandler)
    world.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield world
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make_client(world: World, volume: Volume, clock: Clock) -> Callable[..., TokenClient]:
    volume.rotate(audience="bridge")

    def make(**options: Any) -> TokenClient:
        exchange = Exchange(f"{world.url}/token", **options)
        return TokenClient("ledger", exchange=exchange, path=volume.file, clock=clock)

    return make


@pytest.fixture(params=[True, False], ids=["bound", "bearer"])
def client(request: pytest.FixtureRequest, make_client: Callable[..., TokenClient]) -> TokenClient:
    return make_client(dpop=request.param)


def test_the_issued_token_goes_with_the_request(
    client: TokenClient, world: World, send: SendRequest, volume: Volume
) -> None:
    for _ in range(3):
        assert send(client, OutgoingRequest(url=f"{world.url}/a?b=c#d")) == (200, "fine")
    (form,) = world.trades
    assert form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": volume.file.read_text(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "ledger",
    }


def test_a_post_with_a_body_has_a_proof_of_its_own(client: TokenClient, world: World, send: SendRequest) -> None:
    assert send(client, OutgoingRequest(url=f"{world.url}/a", method="POST", body=b"x"))[0] == 200


def test_scopes_are_asked_for(make_client: Callable[..., TokenClient], world: World) -> None:
    make_client(scopes=["read", "write"]).token()
    assert world.trades[0]["scope"] == "read write"


def test_a_redirect_on_the_same_origin_gets_a_proof_for_its_url(
    client: TokenClient, world: World, send: SendRequest
) -> None:
    assert send(client, OutgoingRequest(url=f"{world.url}/moved")) == (200, "fine")
    assert world.calls[-1] == ("/there", 200)


@pytest.mark.parametrize("dpop", [True, False], ids=["bound", "bearer"])
def test_an_issued_token_in_a_header_of_its_own_is_sent_with_its_proof(
    dpop: bool, world: World, volume: Volume, clock: Clock, send: SendRequest
) -> None:
    volume.rotate(audience="bridge")
    world.header, world.service_nonces = "HTTP_X_POD_AUTHORIZATION", Nonces(now=clock)
    client = TokenClient(
        "ledger",
        exchange=Exchange(f"{world.url}/token", dpop=dpop),
        path=volume.file,
        header="X-Pod-Authorization",
        clock=clock,
    )
    for path in ("/a", "/moved"):
        assert send(client, OutgoingRequest(url=world.url + path)) == (200, "fine")


def test_nonces_of_the_exchange_and_of_the_service_are_sent(
    make_client: Callable[..., TokenClient], world: World, send: SendRequest, clock: Clock
) -> None:
    world.exchange_nonces, world.service_nonces = Nonces(now=clock), Nonces(now=clock)
    client = make_client()
    for _ in range(2):
        assert send(client, OutgoingRequest(url=f"{world.url}/a"))[0] == 200
    assert len(world.trades) == 1


def test_the_token_is_renewed_before_it_expires(client: TokenClient, world: World, clock: Clock) -> None:
    assert client.token() == "issued-1"
    clock.passes(RENEWED_AT * world.lifetime - 1)
    assert client.token() == "issued-1"
    clock.passes(1)
    assert client.token() == "issued-2"


def test_while_the_exchange_is_away_the_last_token_is_used_until_it_expires(
    client: TokenClient, world: World, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.token() == "issued-1"
    world.failure = Response("", status=503)
    for _ in range(3):
        clock.passes(RENEWED_AT * world.lifetime if not caplog.records else RETRY_INTERVAL)
        assert client.token() == "issued-1"
    assert len(caplog.records) == 1
    assert "status 503. The last token from it is used for another" in caplog.text
    clock.passes(world.lifetime)
    with pytest.raises(TokenUnavailable, match="503"):
        client.token()
    world.failure = None
    with pytest.raises(TokenUnavailable):  # not asked again so soon
        client.token()
    clock.passes(RETRY_INTERVAL)
    assert client.token() == "issued-2"


def test_a_rejected_token_is_traded_again_but_not_at_once(
    client: TokenClient, world: World, send: SendRequest, clock: Clock
) -> None:
    assert send(client, OutgoingRequest(url=f"{world.url}/a"))[0] == 200
    world.trades.append({})  # another newest one: the client's is rejected
    assert send(client, OutgoingRequest(url=f"{world.url}/a"))[0] == 401
    clock.passes(MIN_AGE)
    assert send(client, OutgoingRequest(url=f"{world.url}/a"))[0] == 200
    world.trades.append({})
    clock.passes(MIN_AGE)
    world.failure = Response("", status=500)
    assert send(client, OutgoingRequest(url=f"{world.url}/a"))[0] == 401


def test_many_threads_trade_once(client: TokenClient, world: World, clock: Clock) -> None:
    barrier = threading.Barrier(8)

    def call() -> str:
        barrier.wait()
        return client.token()

    with ThreadPoolExecutor(8) as pool:
        assert {future.result() for future in [pool.submit(call) for _ in range(8)]} == {"issued-1"}
    assert len(world.trades) == 1


def test_others_use_the_last_token_while_one_thread_renews_it(client: TokenClient, world: World, clock: Clock) -> None:
    client.token()
    clock.passes(RENEWED_AT * world.lifetime)
    seen: list[str] = []
    world.trading = lambda: seen.append(client.token())
    assert client.token() == "issued-2"
    assert seen == ["issued-1"]


@pytest.mark.parametrize(
    ("status", "error", "fix"),
    [
        (400, "invalid_target", "No grant"),
        (400, "invalid_request", "audience"),
        (401, "invalid_dpop_proof", "clocks"),
        (500, "a\nb", "log"),
        (400, ["invalid_target"], "log"),
        (302, None, "log"),
    ],
)
def test_a_refusal_says_what_to_change(client: TokenClient, world: World, status: int, error: object, fix: str) -> None:
    world.failure = Response(json.dumps({"error": error}), status=status, headers={"Location": "http://evil/"})
    with pytest.raises(TokenUnavailable, match=f"status {status}") as refused:
        client.token()
    assert fix in str(refused.value)
    assert "\n" not in str(refused.value.args[0])


@pytest.mark.parametrize(
    "document",
    [
        "junk",
        [],
        {},
        {"access_token": ""},
        {"access_token": None},
        {"access_token": "a b"},
        {"access_token": "\u00e9"},
        {"expires_in": None},
        {"expires_in": 0},
        {"expires_in": True},
        {"expires_in": "300"},
        {"expires_in": 1e12},
        {"token_type": None},
        {"token_type": "mac"},
        {"padding": "a" * MAX_RESPONSE},
    ],
)
def test_a_response_without_a_usable_token_is_none(client: TokenClient, world: World, document: Any) -> None:
    world.document = lambda right: right | document if document and isinstance(document, dict) else document
    with pytest.raises(TokenUnavailable):
        client.token()


def test_a_token_that_was_not_bound_is_refused(make_client: Callable[..., TokenClient], world: World) -> None:
    world.document = lambda document: document | {"token_type": "Bearer"}
    with pytest.raises(TokenUnavailable, match="not of the type DPoP"):
        make_client().token()


def test_an_exchange_that_cannot_be_reached_is_named(volume: Volume, clock: Clock) -> None:
    volume.rotate(audience="bridge")
    client = TokenClient("ledger", exchange="http://127.0.0.1:1/token", path=volume.file, clock=clock)
    with pytest.raises(TokenUnavailable, match="did not respond as needed: ConnectionError"):
        client.token()


def test_a_pickled_copied_or_forked_client_trades_for_itself(
    client: TokenClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.token()
    assert b"issued-1" not in pickle.dumps(client)
    assert pickle.loads(pickle.dumps(client)).token() == "issued-2"
    assert copy.deepcopy(client).token() == "issued-3"
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert client.token() == "issued-4"


def test_headers_for_other_libraries_need_the_url_of_a_bound_token(make_client: Callable[..., TokenClient]) -> None:
    assert make_client(dpop=False).headers() == {"Authorization": "Bearer issued-1"}
    bound = make_client()
    assert set(bound.headers("http://ledger/a", method="POST")) == {"Authorization", "DPoP"}
    with pytest.raises(ConfigurationError, match="URL of the request"):
        bound.headers()


def test_on_trio_too_the_token_is_traded_in_a_thread(client: TokenClient, world: World) -> None:
    async def call() -> int:
        async with httpx.AsyncClient(auth=client.auth) as http:
            return (await http.get(f"{world.url}/a")).status_code

    assert trio.run(call) == 200


def test_nothing_is_shown_of_the_token(client: TokenClient, world: World) -> None:
    client.token()
    assert repr(client) == f"TokenClient(ExchangedToken('{world.url}/token', audience='ledger'))"
    assert "issued-1" not in repr(client.auth)


NO_ENDPOINTS = ["bridge", "ftp://bridge/token", "https:///token", "https://u@bridge/", "https://[/", "https://b:0/"]


@pytest.mark.parametrize("url", [*NO_ENDPOINTS, "https://b/#c"])
def test_a_url_that_is_no_token_endpoint_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="invalid exchange"):
        TokenClient("ledger", exchange=url)


def test_scopes_are_a_list_and_an_audience_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="invalid scopes"):
        Exchange("https://bridge/token", scopes="read")
    with pytest.raises(ConfigurationError, match="no audience"):
        TokenClient(exchange="https://bridge/token")


def test_the_nonces_of_many_origins_do_not_grow_without_end(make_client: Callable[..., TokenClient]) -> None:
    source: Any = make_client()._source
    state = source._own_state()
    for number in range(200):
        state.keep_nonce(f"http://host-{number}/", "nonce")
        assert len(state.nonces) <= 64
    assert not state.keep_nonce("http://host-0/", "a" * 300)


def test_requests_as_auth_of_a_plain_session_follow_a_redirect(client: TokenClient, world: World) -> None:
    assert requests.get(f"{world.url}/moved", auth=client.auth, timeout=10).status_code == 200


def test_the_default_file_is_that_without_an_audience() -> None:
    with pytest.raises(TokenUnavailable, match="/var/run/secrets/podproof/token"):
        TokenClient("ledger", exchange="http://127.0.0.1:1/token").token()


def test_a_redirect_to_another_origin_brings_no_token_there(client: TokenClient, world: World, tmp_path: Path) -> None:
    with client.session() as http:
        prepared = http.prepare_request(requests.Request("GET", f"{world.url}/a"))
        moved = prepared.copy()
        moved.url = "http://evil/"
        response = requests.Response()
        response.request = prepared
        http.rebuild_auth(moved, response)  # type: ignore[no-untyped-call]
        assert not {"Authorization", "DPoP"} & set(moved.headers)


def test_a_nonce_that_comes_with_a_token_is_for_the_next_trade(
    make_client: Callable[..., TokenClient], world: World, clock: Clock
) -> None:
    client = make_client()
    world.next_nonce = Nonces(now=clock).current()
    assert client.token() == "issued-1"
    source: Any = client._source
    assert source._own_state().nonces == {world.url: world.next_nonce}


def test_a_session_with_another_auth_follows_redirects_as_any_other(client: TokenClient, world: World) -> None:
    with client.session() as http:
        http.auth = ("user", "password")
        assert http.get(f"{world.url}/moved", timeout=10).status_code == 401
    assert world.trades == []
