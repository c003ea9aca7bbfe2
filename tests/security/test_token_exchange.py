"""POST /token and /introspect under attack: nothing is issued for a token that the reference model does not allow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof.exchange import Grant, TokenExchange
from podproof.exchange.token_request import (
    CLIENT_ASSERTION_TYPE,
    CLIENT_CREDENTIALS,
    GRANT_TYPES,
    JWT_BEARER,
    JWT_TYPE,
    TOKEN_EXCHANGE,
)
from tests.security import hostile_tokens
from tests.security.attacked_app import ALICE, LOCAL, MALLORY, AttackEnv
from tests.security.hostile_headers import other_headers
from tests.support.exchange_client import write_keys
from tests.support.leak_detector import LeakDetector
from tests.support.modes import DEFAULT, MODES, Mode

ERRORS = {
    "invalid_client",
    "invalid_dpop_proof",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "invalid_token",
    "unauthorized_client",
    "unsupported_grant_type",
}
TYPE = JWT_TYPE.encode()
SOURCES: dict[str, Callable[[bytes], list[tuple[bytes, bytes]]]] = {
    "subject_token": lambda token: [
        (b"grant_type", TOKEN_EXCHANGE.encode()),
        (b"subject_token", token),
        (b"subject_token_type", TYPE),
    ],
    "assertion": lambda token: [(b"grant_type", JWT_BEARER.encode()), (b"assertion", token)],
    "client_assertion": lambda token: [
        (b"grant_type", CLIENT_CREDENTIALS.encode()),
        (b"client_assertion", token),
        (b"client_assertion_type", CLIENT_ASSERTION_TYPE.encode()),
    ],
}


class AttackedExchange:
    """An exchange that issues tokens for ledger to Alice and Mallory."""

    def __init__(self, attack_env: AttackEnv, leak_detector: LeakDetector, keys: Any, mode: Mode = DEFAULT) -> None:
        grants = [Grant(audience="ledger", allow=["default/*"], introspect=["default/alice"])]
        self._env, self._leak_detector = attack_env, leak_detector
        authenticator = attack_env.make_app(leak_detector, mode=mode).authenticator
        self._app = TokenExchange(issuer="https://bridge", keys=keys, grants=grants, authenticator=authenticator)

    def send(
        self,
        form: list[tuple[bytes, bytes]],
        peer: str = ALICE,
        *,
        path: str = "/token",
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Send a form, and return the status and the JSON of the response, which quotes nothing of the values."""
        for _, value in form:
            self._leak_detector.add_secret(value)
        body = b"&".join(b"%s=%s" % (name, quote_from_bytes(value, "").encode()) for name, value in form)
        return self.send_body(body, peer, path=path, headers=headers)

    def send_body(
        self, body: bytes, peer: str = ALICE, *, path: str = "/token", headers: list[tuple[bytes, bytes]] | None = None
    ) -> tuple[int, dict[str, Any]]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "client": (peer, 4711),
            "headers": [(b"content-type", b"application/x-www-form-urlencoded"), *(headers or [])],
        }
        self._env.runner.run(self._app(scope, receive, send))
        start, content = sent
        answer = json.loads(content["body"])
        self._leak_detector.add_output(content["body"].decode() if start["status"] != 200 else "")
        assert start["status"] in {200, 400, 401, 413}
        assert start["status"] == 200 or answer["error"] in ERRORS
        return start["status"], answer


@pytest.fixture(scope="module")
def exchange(
    attack_env: AttackEnv, leak_detector: LeakDetector, tmp_path_factory: pytest.TempPathFactory
) -> AttackedExchange:
    return AttackedExchange(attack_env, leak_detector, write_keys(tmp_path_factory.mktemp("exchange") / "keys"))


@given(data=st.data(), source=st.sampled_from([*SOURCES]), peer=st.sampled_from([ALICE, ALICE, MALLORY]))
def test_nothing_is_issued_for_an_invalid_token(
    attack_env: AttackEnv, exchange: AttackedExchange, data: st.DataObject, source: str, peer: str
) -> None:
    token = data.draw(hostile_tokens.invalid_tokens(attack_env.token))
    status, _ = exchange.send(SOURCES[source](token), peer)
    assert status != 200 or attack_env.model_allows([b"Bearer " + token], peer)


def test_nothing_is_issued_for_another_spelling_of_a_valid_token(
    attack_env: AttackEnv, exchange: AttackedExchange, record_property: Callable[[str, object], None]
) -> None:
    token = attack_env.token.encode()
    spellings = hostile_tokens.other_spellings(token)
    for spelling in spellings:
        assert exchange.send(SOURCES["assertion"](spelling))[0] != 200
    assert [exchange.send(form(token))[0] for form in SOURCES.values()] == [200] * len(SOURCES)
    record_property("cases", len(spellings))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_what_is_issued_and_what_is_not_is_the_same_in_each_mode(
    attack_env: AttackEnv, leak_detector: LeakDetector, mode: Mode, tmp_path: Path
) -> None:
    exchange = AttackedExchange(attack_env, leak_detector, write_keys(tmp_path / "keys"), mode)
    good = attack_env.token
    bad = [
        attack_env.cluster.forge(good),
        hostile_tokens.forge_under_the_known_key(good),
        attack_env.alice.token("carol"),
        attack_env.alice.token("bob", lifetime=-120),
        attack_env.mallory.token("bob"),
        attack_env.cluster.service_account("default/alice").token("bob"),
        f"{good}=",
    ]
    for form in SOURCES.values():
        assert [exchange.send(form(token.encode()))[0] == 200 for token in (good, *bad)] == [True] + [False] * len(bad)
        assert exchange.send(form(good.encode()), MALLORY)[0] != 200


@pytest.mark.parametrize("peer", [MALLORY, LOCAL, "::1", "not-an-address"])
@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_issued_for_a_stolen_token(
    attack_env: AttackEnv, exchange: AttackedExchange, source: str, peer: str
) -> None:
    assert exchange.send(SOURCES[source](attack_env.token.encode()), peer)[0] != 200


@given(headers=st.lists(other_headers(), max_size=4))
def test_no_header_changes_a_callers_address(
    attack_env: AttackEnv, exchange: AttackedExchange, headers: list[tuple[bytes, bytes]]
) -> None:
    assert exchange.send(SOURCES["assertion"](attack_env.token.encode()), MALLORY, headers=headers)[0] != 200


NAMES = st.sampled_from(
    [
        *(b"grant_type", b"subject_token", b"subject_token_type", b"actor_token", b"actor_token_type", b"assertion"),
        *(b"client_assertion", b"client_assertion_type", b"client_id", b"audience", b"resource", b"scope"),
    ]
)
VALUES = st.one_of(
    st.sampled_from([one.encode() for one in (*GRANT_TYPES, JWT_TYPE, CLIENT_ASSERTION_TYPE, "ledger", "other")]),
    st.binary(max_size=40),
)


@given(form=st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_each_form_has_an_answer_and_none_without_a_token_gets_one(
    exchange: AttackedExchange, form: list[tuple[bytes, bytes]]
) -> None:
    assert exchange.send(form)[0] != 200


@given(body=st.binary(max_size=200))
def test_each_body_has_an_answer(exchange: AttackedExchange, body: bytes) -> None:
    assert exchange.send_body(body)[0] != 200


@given(data=st.data())
def test_only_an_issued_token_is_active(attack_env: AttackEnv, exchange: AttackedExchange, data: st.DataObject) -> None:
    issued = exchange.send(SOURCES["assertion"](attack_env.token.encode()))[1]["access_token"]
    asking = [(b"authorization", f"Bearer {attack_env.token}".encode())]
    hostile = data.draw(hostile_tokens.invalid_tokens(issued))
    status, answer = exchange.send([(b"token", hostile)], path="/introspect", headers=asking)
    assert status == 400 or answer["active"] == (hostile == issued.encode())
    assert exchange.send([(b"token", issued.encode())], path="/introspect", headers=asking)[1]["active"]


def test_another_spelling_of_an_issued_token_is_not_active(attack_env: AttackEnv, exchange: AttackedExchange) -> None:
    issued = exchange.send(SOURCES["assertion"](attack_env.token.encode()))[1]["access_token"].encode()
    asking = [(b"authorization", f"Bearer {attack_env.token}".encode())]
    for other in {*hostile_tokens.other_spellings(issued)} - {issued}:
        _, answer = exchange.send([(b"token", other)], path="/introspect", headers=asking)
        assert not answer.get("active"), other
