"""`introspect=`: on which requests a service asks the exchange about a token, and what it makes of the response."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from podproof import ConfigurationError
from podproof._token.token_hash import token_hash
from podproof.errors import Overloaded
from podproof.exchange.asgi import IssuedTokenMiddleware as ASGIMiddleware
from podproof.exchange.wsgi import IssuedTokenMiddleware as WSGIMiddleware
from podproof.testing._emulator.http_server import ClientConnection, LoopbackServer, ServerRequest, ServerResponse
from tests.support.dpop_proofs import key_thumbprint, make_proof
from tests.support.issued_tokens import AUDIENCE, ISSUER, issued_claims, issued_token, published_keys
from tests.support.leak_detector import LeakDetector, capture_all_records
from tests.support.middleware_client import ClientResponse, MiddlewareClient
from tests.support.signed_tokens import signed_token

OWN = signed_token(claims={"aud": ["bridge"], "exp": int(time.time()) + 600})
"""The service's own token, by which it authenticates at the exchange."""


def described(**changes: object) -> dict[str, Any]:
    """Return what an exchange says of Alice's token, with other members; None removes one."""
    said = {"active": True, "token_type": "Bearer", **issued_claims(), **changes}
    return {name: value for name, value in said.items() if value is not None}


@dataclass
class Bridge:
    """The introspection endpoint, which responds as a test says."""

    response: ServerResponse = field(default_factory=lambda: ServerResponse(200, described()))
    questions: list[ServerRequest] = field(default_factory=list)
    url: str = ""

    def respond(self, request: ServerRequest) -> ServerResponse:
        self.questions.append(request)
        return self.response

    @property
    def asked(self) -> list[tuple[str, str, str | None, Mapping[str, list[str]]]]:
        return [(one.method, one.path, one.authorization, parse_qs(one.body.decode())) for one in self.questions]


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    server = LoopbackServer(bridge.respond, None)
    bridge.url = f"http://127.0.0.1:{server.port}/introspect"
    yield bridge
    server.stop()


class Ledger:
    """A service that asks about tokens; `reached` are the paths of the requests that its app got."""

    def __init__(self, kind: str, **options: object) -> None:
        self.calls = 0
        self._client = MiddlewareClient(
            kind, None, self._count, middlewares=(WSGIMiddleware, ASGIMiddleware), audience=AUDIENCE, **options
        )

    def _count(self) -> None:
        self.calls += 1

    def get(self, path: str = "/", *, token: str = "", proof: str = "") -> ClientResponse:
        scheme = "DPoP" if proof else "Bearer"
        return self._client(path, headers={"Authorization": f"{scheme} {token or issued_token()}", "DPoP": proof})


MakeLedger = Callable[..., Ledger]


@pytest.fixture(params=["wsgi", "asgi"])
def make_ledger(request: pytest.FixtureRequest, tmp_path: Path, bridge: Bridge) -> MakeLedger:
    (tmp_path / "jwks.json").write_text(json.dumps(published_keys()))
    (tmp_path / "token").write_text(OWN)

    def make(introspect: bool | Sequence[str] = True, **options: object) -> Ledger:
        given = {
            "issuer": ISSUER,
            "jwks": str(tmp_path / "jwks.json"),
            "dpop": "optional",
            "introspection_endpoint": bridge.url,
            "token_file": tmp_path / "token",
        }
        return Ledger(request.param, introspect=introspect, **{**given, **options})

    return make


def test_each_request_is_asked_about_by_our_own_token_and_no_response_is_kept(
    make_ledger: MakeLedger, bridge: Bridge
) -> None:
    ledger, token = make_ledger(), issued_token()
    assert [ledger.get(token=token).status for _ in range(2)] == [200, 200]
    assert bridge.asked == [("POST", "/introspect", f"Bearer {OWN}", {"token": [token]})] * 2
    bridge.response = ServerResponse(200, {"active": False})
    response = ledger.get(token=token)
    assert (response.status, ledger.calls) == (401, 2)
    assert 'error="invalid_token"' in response.headers["Www-Authenticate"]
    bridge.response = ServerResponse(200, described())
    assert ledger.get(token=token).status == 200


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/transfers/7", True),
        ("/transfers", True),
        ("/account", True),
        ("/account/", True),
        ("/transfers/../account", True),
        ("//account", True),
        ("/accoun%74", True),
        ("/%61", True),
        ("/accounts", False),
        ("/a", False),
        ("/", False),
    ],
)
def test_only_requests_that_may_be_for_its_paths_are_asked_about(
    make_ledger: MakeLedger, bridge: Bridge, path: str, asked: bool
) -> None:
    ledger = make_ledger(introspect=["/transfers/*", "/account"])
    bridge.response = ServerResponse(200, {"active": False})
    for _ in range(2):  # the second time the token is known
        assert ledger.get(path).status == (401 if asked else 200)
    assert len(bridge.questions) == (2 if asked else 0)


def drip(client: ClientConnection, head: bytes, _: bytes) -> None:
    """Send a byte of the body at a time, until the client has closed the connection."""
    with suppress(OSError):
        client.send(head.replace(b"Content-Length: 0", b"Content-Length: 200000"))
        while True:
            client.send(b" ")
            threading.Event().wait(0.005)


def say(**changes: object) -> ServerResponse:
    return ServerResponse(200, described(**changes))


HOSTILE: Mapping[str, ServerResponse] = {
    "not JSON": ServerResponse(200, b"<html>active</html>"),
    "a list": ServerResponse(200, [{"active": True}]),
    "nothing": ServerResponse(200, b""),
    "nested too deep": ServerResponse(200, b"[" * 100_000),
    "a member twice, the last one no answer": ServerResponse(200, b'{"active": true, "active": null}'),
    "active as a text": say(active="true"),
    "active as a number": say(active=1),
    "inactive as a text": say(active="false"),
    "active as an object": say(active={"active": True}),
    "no active": say(active=None),
    "no more than active": ServerResponse(200, {"active": True}),
    "another audience": say(aud="books"),
    "several audiences": say(aud=["ledger"]),
    "another issuer": say(iss="https://mallory"),
    "another subject": say(sub="system:serviceaccount:default:mallory"),
    "another token": say(jti="token-2"),
    "no token's ID": say(jti=None),
    "huge": ServerResponse(200, b'{"active": true, "x": "' + b"x" * 300_000 + b'"}'),
    "a redirect": ServerResponse(307, described(), headers={"Location": "/elsewhere"}),
    "an error": ServerResponse(500, described()),
    "our token is not accepted": ServerResponse(401, {"error": "invalid_token"}),
    "nothing found": ServerResponse(404, b""),
    "created": ServerResponse(201, described()),
    "reset": ServerResponse(200, b"", send=lambda client, *_: client.reset()),
    "broken off": ServerResponse(200, described(), send=lambda client, head, body: client.send(head + body[:9])),
    "no HTTP": ServerResponse(200, b"", send=lambda client, *_: client.send(b"active\r\n\r\n")),
    "slow": ServerResponse(200, b"", send=drip),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_response_that_does_not_say_that_this_token_is_active_lets_nobody_in(
    make_ledger: MakeLedger, bridge: Bridge, case: str
) -> None:
    ledger = make_ledger(timeout=0.2 if case == "slow" else 5.0)
    bridge.response = HOSTILE[case]
    begun = time.monotonic()
    response = ledger.get()
    assert (response.status, ledger.calls) == (503, 0)
    assert time.monotonic() - begun < 4
    assert "Retry-After" in response.headers
    assert len(bridge.questions) == 1 or case == "slow"  # not again, and not elsewhere


def test_while_the_exchange_is_away_risky_requests_wait_and_others_do_not(
    make_ledger: MakeLedger, bridge: Bridge
) -> None:
    ledger = make_ledger(introspect=["/transfers/*"], introspection_endpoint="http://127.0.0.1:1/introspect")
    assert [ledger.get(path).status for path in ("/transfers/7", "/")] == [503, 200]


def test_without_a_token_of_its_own_a_service_lets_nobody_in(
    make_ledger: MakeLedger, bridge: Bridge, tmp_path: Path
) -> None:
    ledger = make_ledger(token_file=tmp_path / "none")
    assert (ledger.get().status, bridge.questions) == (503, [])


def test_a_token_that_is_not_valid_is_not_asked_about(make_ledger: MakeLedger, bridge: Bridge) -> None:
    ledger = make_ledger()
    assert ledger.get(token=issued_token(name="mallory")).status == 401
    assert ledger.get(token=issued_token(aud="books")).status == 401
    assert bridge.questions == []


def test_a_bound_token_without_its_proof_is_not_asked_about(make_ledger: MakeLedger, bridge: Bridge) -> None:
    ledger, token = make_ledger(dpop="required"), issued_token(cnf={"jkt": key_thumbprint()})
    assert ledger.get(token=token).status == 401
    assert bridge.questions == []
    proof = make_proof({"htu": "http://bob/", "ath": token_hash(token), "iat": time.time()})
    assert ledger.get(token=token, proof=proof).status == 200
    assert len(bridge.questions) == 1


def test_in_report_only_the_denial_is_only_logged(
    make_ledger: MakeLedger, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    bridge.response = ServerResponse(200, {"active": False})
    with caplog.at_level("INFO", "podproof"):
        assert make_ledger(enforce=False).get().status == 200
    assert "token-inactive" in caplog.text


def test_a_request_that_there_is_no_thread_for_is_unavailable(
    make_ledger: MakeLedger, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger()

    def refuse(*_: object) -> None:
        raise Overloaded("too many are waiting")

    monkeypatch.setattr("podproof.exchange.introspection.Introspection.start", refuse)
    assert (ledger.get().status, ledger.calls) == (503, 0)


def test_no_token_is_in_a_log(make_ledger: MakeLedger, bridge: Bridge) -> None:
    leak_detector, token = LeakDetector(), issued_token()
    for secret in (OWN, token):
        leak_detector.add_secret(secret.encode())
    ledger = make_ledger()
    for content in (described(), {"active": False}, {"active": token}, {"error": OWN}):
        bridge.response = ServerResponse(200, content)
        with capture_all_records(leak_detector.add_record):
            ledger.get(token=token)
    assert {"token-inactive", "unavailable"} <= {code for code, _ in leak_detector.decisions}
    leak_detector.assert_no_leak()


@pytest.mark.parametrize("introspect", ["/transfers/*", [], ["transfers"], ["/a/../b"], [7], None, 1, b"/a"])
def test_an_invalid_introspect_stops_the_start(make_ledger: MakeLedger, introspect: Any) -> None:
    with pytest.raises(ConfigurationError, match="invalid introspect"):
        make_ledger(introspect=introspect)


def test_the_endpoint_is_below_the_issuer_and_never_plain_http_elsewhere(make_ledger: MakeLedger) -> None:
    make_ledger(introspection_endpoint=None)
    with pytest.raises(ConfigurationError, match="invalid URL of the introspection endpoint"):
        make_ledger(introspection_endpoint="http://bridge/introspect")
