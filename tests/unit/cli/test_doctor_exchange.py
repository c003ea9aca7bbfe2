"""The doctor in the pod of a token exchange."""

from __future__ import annotations

from pathlib import Path

from podproof.cli.checks.exchange import check_exchange
from podproof.cli.checks.web_server import check_web_servers
from podproof.cli.finding import Level
from tests.support.exchange_client import SECRET, write_keys

GRANTS = "grants: [{audience: ledger, allow: [default/alice]}]"
VARIABLES = {"PODPROOF_EXCHANGE_KEYS": "/keys", "PODPROOF_EXCHANGE_GRANTS_FILE": "/grants.yaml"}


def test_keys_and_grants_are_read(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", secrets={"1.pairwise": SECRET})
    (tmp_path / "grants.yaml").write_text(GRANTS)
    assert [finding.level for finding in check_exchange(VARIABLES, tmp_path)] == [Level.OK, Level.OK]


def test_what_is_broken_is_said(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", secrets={"1.pairwise": b"short"})
    (tmp_path / "grants.yaml").write_text("grants: []\nother: x")
    keys, grants = check_exchange(VARIABLES, tmp_path)
    assert (keys.level, grants.level) == (Level.FAIL, Level.FAIL)
    assert "1.pairwise: expected a random secret" in keys.message
    assert "unknown key 'other'" in grants.message


def test_an_app_without_an_exchange_is_not_asked_for_one(tmp_path: Path) -> None:
    assert [*check_exchange({}, tmp_path)] == []


def test_its_own_server_is_known() -> None:
    assert check_web_servers([["python", "-m", "podproof", "serve", "exchange"]], {}, running=True) == []
