from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from podproof.audit import JSONFormatter
from podproof.cli import main
from podproof.cli.denials import FIXES, count_decisions, format_report
from podproof.errors import PodAuthError
from podproof.exchange import denied, user_tokens
from tests.support.fake_api import token
from tests.support.middleware_client import MiddlewareClient


@pytest.fixture
def log(make_client: Callable[..., MiddlewareClient]) -> str:
    """Return the decision log of a service that enforces nothing yet, as its handler writes it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JSONFormatter())
    audit = logging.getLogger("podproof.audit")
    audit.addHandler(handler)
    before = audit.level
    audit.setLevel(logging.INFO)
    client = make_client(enforce=False)
    for path in ("/orders", "/orders", "/health"):
        client(path, headers={"Authorization": ""})
    client("/orders", peer="10.9.9.9")
    client("/orders", headers={"Authorization": f"Bearer {token(aud='carol')}"})
    client("/orders")
    audit.setLevel(before)
    audit.removeHandler(handler)
    return written.getvalue()


def test_denials_are_counted_by_code_and_caller(log: str) -> None:
    assert format_report(count_decisions(log.splitlines())).splitlines() == [
        "COUNT  CALLER           FROM      REQUEST           CODE",
        "3      -                10.1.2.3  GET /orders (+1)  no-credential",
        "1      default/alice    10.9.9.9  GET /orders       wrong-address",
        "1      default/alice ?  10.1.2.3  GET /orders       wrong-audience",
        "",
        f"no-credential   {FIXES['no-credential']}",
        f"wrong-address   {FIXES['wrong-address']}",
        f"wrong-audience  {FIXES['wrong-audience']}",
        "",
        "5 would be denied, 0 denied, 1 allowed",
    ]


def test_the_command_reads_a_file_or_standard_input(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log"
    file.write_text(log)
    assert main(["report", str(file)]) == 1
    shown = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(log))
    assert main(["report"]) == 1
    assert capsys.readouterr().out == shown
    assert shown.endswith("5 would be denied, 0 denied, 1 allowed\n")
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "none cannot be read: No such file" in capsys.readouterr().err


def test_a_log_without_denials_is_a_success(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text('{"decision": "allowed", "code": "authenticated"}\n')
    assert main(["report", str(file)]) == 0
    assert capsys.readouterr().out == "0 would be denied, 0 denied, 1 allowed\n"


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ("", 0),
        ("GET / 200", 1),
        ("{", 1),
        ("[1]", 1),
        ("7", 1),
        ("{" * 100_000, 1),
        ('{"decision": "denied"}', 1),
        ('{"decision": "denied", "code": 7}', 1),
        ('{"decision": ["denied"], "code": "expired"}', 1),
        ('[pod/bob/app] 2026-01-01T00:00:00Z {"decision": "denied", "code": "expired"}', 0),
    ],
)
def test_lines_that_are_no_record_are_counted(line: str, unread: int) -> None:
    counts = count_decisions([line + "\n"])
    assert counts.unread == unread
    assert (f"{unread} lines are no JSON record" in format_report(counts)) is bool(unread)


def test_nothing_in_a_log_controls_the_terminal() -> None:
    record = '{"decision": "denied", "code": "\\u001b[2J", "peer": "\\u001b[2J", "path": "\\u009b2J", "method": 7}'
    assert all(line.isprintable() and line.isascii() for line in format_report(count_decisions([record])).splitlines())


def test_there_is_a_fix_for_each_code() -> None:
    assert {denied.__name__, user_tokens.__name__} <= {*sys.modules}  # they have errors of their own

    def codes(kind: type[PodAuthError]) -> set[str]:
        return {kind.code} | {code for one in kind.__subclasses__() for code in codes(one)}

    assert codes(PodAuthError) - {"denied", "invalid-token", "forbidden"} == FIXES.keys()
