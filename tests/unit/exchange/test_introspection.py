"""POST /introspect (RFC 7662): what is said of a token, to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
import pytest

from podproof.errors import Unavailable
from podproof.exchange import Grant
from tests.support.exchange_client import ISSUER, LEDGER, ExchangeClient, client_assertion
from tests.support.fake_api import NOW, PEER, FakeAPI, pod, token
from tests.support.signed_tokens import make_key
from tests.unit.exchange.conftest import MakeExchange

INACTIVE = {"active": False}


def test_an_active_token_is_described(exchange: ExchangeClient) -> None:
    issued = exchange.issue()
    response = exchange.introspect(issued)
    assert response.json() == {"active": True, "token_type": "Bearer", **exchange.claims(issued)}
    assert response.headers["cache-control"] == "no-store"


def test_a_client_may_authenticate_by_an_assertion(exchange: ExchangeClient) -> None:
    data = {"token": exchange.issue(), **client_assertion(token())}
    assert exchange.post("/introspect", data=data).json()["active"]


ENDS: dict[str, Callable[[ExchangeClient, FakeAPI], object]] = {
    "deleted": lambda _, api: setattr(api, "pod", None),
    "replaced by one of its name": lambda _, api: setattr(api, "pod", pod(metadata={"uid": "another"})),
    "finished": lambda _, api: setattr(api, "pod", pod(status={"phase": "Succeeded"})),
    "of another service account": lambda _, api: setattr(api, "pod", pod(spec={"serviceAccountName": "b"})),
    "expired": lambda exchange, _: exchange.clock.passes(300),
}


@pytest.mark.parametrize("subject", ["service-account", "pairwise"])
@pytest.mark.parametrize("end", ENDS)
def test_a_token_is_inactive_once_its_pod_or_itself_has_ended(
    make_exchange: MakeExchange, fake_api: FakeAPI, subject: str, end: str
) -> None:
    exchange = make_exchange(subject=subject)
    issued = exchange.issue()
    assert exchange.introspect(issued).json()["active"]
    ENDS[end](exchange, fake_api)
    assert exchange.introspect(issued).json() == INACTIVE


def test_whether_a_pod_lives_is_not_guessed(exchange: ExchangeClient, fake_api: FakeAPI) -> None:
    issued = exchange.issue()
    fake_api.pod = Unavailable("down")
    response = exchange.introspect(issued)
    assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")


def _forged(claims: dict[str, Any], **more: Any) -> str:
    return jwt.encode(claims, make_key("ES256", "another"), algorithm="ES256", headers={"kid": "1", **more})


FOREIGN: dict[str, Callable[[ExchangeClient], str]] = {
    "no token": lambda _: "x",
    "a projected token": lambda _: token(),
    "too long": lambda _: "a." * 5000,
    "signed by another key": lambda exchange: _forged(
        {"iss": ISSUER, "aud": "ledger", "exp": NOW + 60}, **jwt.get_unverified_header(exchange.issue())
    ),
    "of an unknown key": lambda _: _forged({"iss": ISSUER, "aud": "ledger", "exp": NOW + 60}, typ="at+jwt"),
    "of another issuer with our key": lambda exchange: jwt.encode(
        {"iss": "https://other", "aud": "ledger", "exp": NOW + 60},
        make_key("ES256", "1"),
        algorithm="ES256",
        headers=jwt.get_unverified_header(exchange.issue()),
    ),
    "of another type with our key": lambda exchange: jwt.encode(
        {"iss": ISSUER, "aud": "ledger", "exp": NOW + 60},
        make_key("ES256", "1"),
        algorithm="ES256",
        headers=jwt.get_unverified_header(exchange.issue()) | {"typ": "JWT"},
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_was_not_issued_here_is_inactive(exchange: ExchangeClient, case: str) -> None:
    assert exchange.introspect(FOREIGN[case](exchange)).json() == INACTIVE


def test_nothing_is_said_about_tokens_for_audiences_of_others(make_exchange: MakeExchange) -> None:
    books = Grant(audience="books", allow=["default/alice"], introspect=["default/books"])
    exchange = make_exchange(grants=[LEDGER, books])
    assert exchange.introspect(exchange.issue(audience="books")).json() == INACTIVE


def test_a_token_whose_secret_is_gone_is_inactive(make_exchange: MakeExchange, tmp_path: Any) -> None:
    exchange = make_exchange(subject="pairwise")
    issued = exchange.issue()
    (tmp_path / "keys" / "1.pairwise").write_bytes(b"another secret of thirty-two bytes or more")
    other = make_exchange(subject="pairwise", keys=tmp_path / "keys")
    assert other.introspect(issued).json() == INACTIVE


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"headers": {}}, (401, "invalid_token")),
        ({"headers": {"Authorization": f"Bearer {token(aud=['x'])}"}}, (401, "invalid_token")),
        ({"peer": "10.9.9.9"}, (401, "invalid_token")),
        ({"data": {"token": "x", **client_assertion("a.b.c")}, "headers": {}}, (401, "invalid_client")),
        ({"data": {"other": "x"}}, (400, "invalid_request")),
        ({"data": {"token": "x", **client_assertion(token())}}, (400, "invalid_request")),
        ({"data": {"token": "x", "client_assertion": token()}, "headers": {}}, (400, "invalid_request")),
    ],
)
def test_each_refusal_has_its_error(exchange: ExchangeClient, more: dict[str, Any], expected: tuple[int, str]) -> None:
    response = (
        exchange.introspect("x", **{"peer": PEER} | more)
        if "data" not in more
        else exchange.post("/introspect", **{"headers": {"Authorization": f"Bearer {token()}"}} | more)
    )
    assert (response.status_code, response.json()["error"]) == expected
    if response.status_code == 401:
        assert response.headers["www-authenticate"] == f'Bearer realm="bob", error="{expected[1]}"'


def test_a_caller_that_may_not_call_is_unauthorized(make_exchange: MakeExchange) -> None:
    response = make_exchange({"allow": ["default/carol"]}).introspect("x")
    assert (response.status_code, response.json()["error"]) == (400, "unauthorized_client")
