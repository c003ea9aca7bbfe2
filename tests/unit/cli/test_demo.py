from __future__ import annotations

import io
import subprocess
import sys

import pytest

from podproof.cli import demo, main
from podproof.testing import Cluster


def test_the_demo_shows_who_is_known_and_who_is_refused() -> None:
    command = [sys.executable, "-m", "podproof", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].split() == ["WHO", "CALLED", "FROM", "WITH", "WHAT", "CAME", "OF", "IT"]
    outcomes = [line.split("  ")[-1].strip() for line in lines[1:9]]
    assert outcomes == [
        "200 known as default/alice in default/alice-pod",
        "200 known as default/alice in default/alice-pod",
        "403 wrong-address",
        "401 wrong-audience",
        "401 token-review-failed",
        "401 expired",
        "401 not-pod-bound",
        "401 no-credential",
    ]
    assert lines[-1].endswith("as it must")
    assert "eyJ" not in done.stdout + done.stderr


def test_what_does_not_come_out_as_it_must_is_marked_and_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is = demo._calls

    def wrong(cluster: Cluster) -> list[demo.Call]:
        first, *rest = as_it_is(cluster)
        return [first._replace(status=401), *rest]

    monkeypatch.setattr(demo, "_calls", wrong)
    out = io.StringIO()
    assert demo.demo(out) == 1
    lines = out.getvalue().splitlines()
    assert [line.endswith("WRONG") for line in lines[1:9]] == [True, *[False] * 7]
    assert lines[-1].endswith("1 of them not as they must")


def test_the_command_runs_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    assert "8 calls to Bob" in capsys.readouterr().out
