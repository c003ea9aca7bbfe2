"""Who may get a token for which audience, in code and in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from podproof.errors import ConfigurationError
from podproof.exchange import Grant
from podproof.exchange.denied import ScopeNotGranted, TargetNotGranted
from podproof.exchange.grants import Granted, Grants
from podproof.exchange.grants_file import read_grants
from podproof.identity import ServiceAccount
from tests.support.exchange_client import ExchangeClient
from tests.unit.exchange.conftest import MakeExchange

ALICE = ServiceAccount("default", "alice")
IDP = "https://idp.example"
READ = Grant(audience="ledger", allow=["default/*"], scopes=["read"])
WRITE = Grant(audience="ledger", allow=["default/alice"], scopes=["write", "read"], subject="pairwise")


def test_grants_for_one_audience_add_up_and_the_first_says_what_is_seen() -> None:
    assert Grants([READ, WRITE]).decide(ALICE, "ledger", None) == Granted(
        "ledger", ("read", "write"), "service-account", pod=True
    )
    assert Grants([WRITE, READ]).decide(ALICE, "ledger", ["read"]) == Granted(
        "ledger", ("read",), "pairwise", pod=False
    )


def test_what_no_grant_covers_is_refused() -> None:
    grants = Grants([READ, Grant(audience="books", allow=["other/*"])])
    for account, target in (
        (ALICE, "books"),
        (ServiceAccount("third", "x"), "ledger"),
        (ServiceAccount("x", "y"), None),
    ):
        with pytest.raises(TargetNotGranted):
            grants.decide(account, target, None)
    with pytest.raises(ScopeNotGranted):
        grants.decide(ALICE, "ledger", ["read", "write"])


def test_to_act_for_a_user_is_granted_by_issuer() -> None:
    grants = Grants([READ, Grant(audience="books", allow=["*/*"], users=[IDP])], user_issuers=[IDP])
    assert grants.decide(ALICE, "books", None, IDP).audience == "books"
    for target, issuer in (("ledger", IDP), ("books", "https://other.example")):
        with pytest.raises(TargetNotGranted, match="on behalf of a user"):
            grants.decide(ALICE, target, None, issuer)


def test_users_of_two_issuers_need_pairwise_subjects() -> None:
    both: Any = {"audience": "books", "allow": ["*/*"], "users": ["https://a.example", "https://b.example"]}
    with pytest.raises(ValueError, match="who may have the same sub"):
        Grants([Grant(**both)], user_issuers=both["users"])
    Grants([Grant(**both, subject="pairwise")], user_issuers=both["users"])
    with pytest.raises(ValueError, match="not in user_issuers"):
        Grants([Grant(**both)], user_issuers=both["users"][:1])


def test_who_may_introspect_is_named_by_audience() -> None:
    grants = Grants([READ, Grant(audience="books", allow=["a/b"], introspect=["default/alice"])])
    assert grants.introspectable(ALICE) == {"books"}
    assert grants.introspectable(ServiceAccount("default", "bob")) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audience": ""}, "invalid audience ''"),
        ({"audience": 1}, "invalid audience 1"),
        ({"audience": "a b"}, "invalid audience 'a b'"),
        ({"allow": "default/alice"}, "invalid allow 'default/alice': expected a list of texts"),
        ({"allow": []}, "an allow-list needs at least one pattern"),
        ({"allow": ["alice"]}, "invalid pattern 'alice'"),
        ({"scopes": ["a b"]}, "invalid scope 'a b'"),
        ({"scopes": [1]}, "invalid scopes"),
        ({"users": [""]}, "invalid users"),
        ({"introspect": ["ledger"]}, "invalid pattern 'ledger'"),
        ({"subject": "other"}, "invalid subject 'other'"),
        ({"pod": "no"}, "invalid pod 'no'"),
    ],
)
def test_an_invalid_grant_says_what_is_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Grant(**{"audience": "ledger", "allow": ["default/alice"]} | changes)


FILE = """\
grants:
  - audience: ledger
    allow: ["default/*"]
    scopes: [read]
    users: [https://idp.example]
    introspect: [default/ledger]
    subject: pairwise
    pod: true
  - {audience: https://books/, allow: [default/alice]}
"""


def test_a_file_has_the_same_grants(tmp_path: Path) -> None:
    file = tmp_path / "grants.yaml"
    file.write_text(FILE)
    first = Grant(
        audience="ledger",
        allow=["default/*"],
        scopes=["read"],
        users=[IDP],
        introspect=["default/ledger"],
        subject="pairwise",
        pod=True,
    )
    assert read_grants(file) == [first, Grant(audience="https://books/", allow=["default/alice"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping with grants, got an empty file"),
        ("grants: [{audience: ledger}]", "line 1: missing key 'allow'"),
        ("grants:\n- {audience: a, allow: [a]}", "line 2: invalid pattern 'a'"),
        ("grants:\n- {audience: a, allow: [a/b], pod: maybe}", "line 2: invalid pod: expected true or false"),
        ("grants:\n- {audience: a, allow: [a/b], other: 1}", "line 2: unknown key 'other'"),
        ("grants:\n- {audience: a, allow: [a/b], users: [https://x]}", "users of 'https://x'"),
    ],
)
def test_a_broken_file_stops_the_start(make_exchange: MakeExchange, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "grants.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        make_exchange(grants_file=file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_file_is_read_again_when_it_changes(
    make_exchange: MakeExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podproof._authorization.reloaded._start_thread", lambda work: work())
    file = tmp_path / "grants.yaml"
    file.write_text("grants: [{audience: ledger, allow: [default/alice]}]")
    exchange: ExchangeClient = make_exchange(grants_file=file)
    assert exchange.exchange().status_code == 200
    file.write_text("grants: [{audience: ledger, allow: [default/carol]}]")
    exchange.clock.passes(1)
    exchange.exchange()
    assert exchange.exchange().status_code == 400
