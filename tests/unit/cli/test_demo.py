from __future__ import annotations

import io
import subprocess
import sys

import pytest

from podproof.cli import demo, main
from podproof.testing import Cluster


def test_the_demo_shows_which_requests_are_allowed_and_denied() -> None:
    command = [sys.executable, "-m", "podproof", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].split() == ["CALLER", "FROM", "CREDENTIAL", "RESULT"]
    results = [line.split("  ")[-1].strip() for line in lines[1:9]]
    assert results == [
        "200 authenticated as default/alice in default/alice-pod",
        "200 authenticated as default/alice in default/alice-pod",
        "403 wrong-address",
        "401 wrong-audience",
        "401 token-review-failed",
        "401 expired",
        "401 not-pod-bound",
        "401 no-credential",
    ]
    assert lines[-1] == "2 TokenReviews; all results as expected"
    assert "eyJ" not in done.stdout + done.stderr


def test_the_demo_verifies_by_keys_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--verify", "keys"]) == 0
    # The one that names an unknown key.
    assert capsys.readouterr().out.endswith("\n1 TokenReview; all results as expected\n")


def test_an_unexpected_result_is_marked_and_the_exit_status_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    original = demo._scenarios

    def change_first(cluster: Cluster, *arguments: str) -> list[demo.Scenario]:
        first, *rest = original(cluster, *arguments)
        return [first._replace(status=401), *rest]

    monkeypatch.setattr(demo, "_scenarios", change_first)
    out = io.StringIO()
    assert demo.run_demo(out) == 1
    lines = out.getvalue().splitlines()
    assert [line.endswith("UNEXPECTED") for line in lines[1:9]] == [True, *[False] * 7]
    assert lines[-1] == "2 TokenReviews; 1 of 8 results not as expected"


def test_the_command_runs_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    assert "2 TokenReviews" in capsys.readouterr().out
