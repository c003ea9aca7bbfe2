"""`podproof inspect --reverse`: the operator learns who is behind a pairwise subject."""

from __future__ import annotations

from pathlib import Path

import pytest

from podproof.cli import main
from podproof.exchange.key_directory import KeyFiles
from podproof.exchange.pairwise import PairwiseSubjects
from tests.support.exchange_client import SECRET, write_keys
from tests.support.signed_tokens import signed_token

ALICE = "system:serviceaccount:default:alice"


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return str(write_keys(tmp_path / "keys", secrets={"1.pairwise": SECRET}))


@pytest.fixture
def subject() -> str:
    pairwise = PairwiseSubjects(lambda: KeyFiles({}, {"1.pairwise": SECRET}, "1.pairwise"))
    return pairwise.make("service-account", ALICE, "ledger")


def test_of_a_subject(keys: str, subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--reverse", keys, "--subject", subject, "--audience", "ledger"]) == 0
    assert capsys.readouterr().out == f"service-account {ALICE} (by 1.pairwise)\n"


def test_of_an_issued_token(keys: str, subject: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text(signed_token(claims={"sub": subject, "aud": "ledger"}))
    assert main(["inspect", "--reverse", keys, str(tmp_path / "token")]) == 0
    assert capsys.readouterr().out == f"service-account {ALICE} (by 1.pairwise)\n"


def test_what_cannot_be_reversed_is_said(
    keys: str, subject: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("no token")
    broken = write_keys(tmp_path / "broken", secrets={"1.pairwise": b"short"})
    for arguments, message in (
        ([keys, "--subject", subject, "--audience", "partner"], "has made this subject for the audience 'partner'"),
        ([keys, str(tmp_path / "token")], "is not a JSON Web Token"),
        ([str(tmp_path / "absent"), "--subject", subject, "--audience", "ledger"], "cannot read secrets in"),
        ([str(broken), "--subject", subject, "--audience", "ledger"], "at least 32 bytes"),
    ):
        assert main(["inspect", "--reverse", *arguments]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert SECRET.decode() not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subject", "x"], "--subject and --audience belong together"),
        (["--subject", "x", "--audience", "y"], "--subject needs --reverse DIRECTORY"),
    ],
)
def test_options_that_belong_together_are_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", *arguments])
    assert message in capsys.readouterr().err
