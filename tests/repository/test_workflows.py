"""The workflows of the repository's CI: linted, pinned, and the same commands as everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def lint(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_there_are_two() -> None:
    assert [path.name for path in WORKFLOWS] == ["gate.yml", "integration.yml"]


def test_actionlint_finds_nothing(workflow: Path) -> None:
    done = lint("actionlint", "-no-color", workflow)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_actionlint_finds_what_is_wrong(tmp_path: Path, workflow: Path) -> None:
    broken = tmp_path / workflow.name
    broken.write_text(workflow.read_text().replace("timeout-minutes:", "timeout-hours:"))
    assert "timeout-hours" in lint("actionlint", "-no-color", broken).stdout


def test_zizmor_finds_nothing(workflow: Path) -> None:
    done = lint("zizmor", "--offline", "--persona", "pedantic", "--no-progress", workflow)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_what_is_wrong(tmp_path: Path, workflow: Path) -> None:
    unpinned = tmp_path / workflow.name
    unpinned.write_text(re.sub(r"@[0-9a-f]{40} # ", "@", workflow.read_text()))
    assert "unpinned-uses" in lint("zizmor", "--offline", "--no-progress", unpinned).stdout


def test_actions_images_and_downloads_are_pinned(workflow: Path) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)
    text = workflow.read_text()
    assert all(re.match(r"\S+:v[\d.]+@sha256:[0-9a-f]{64}\n", node) for node in text.split("node: ")[1:])
    assert text.count("releases/download") == text.count("_SHA256: ")


def test_it_runs_targets_of_the_makefile(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    made = [step["run"].split()[1:] for step in steps(workflow) if step.get("run", "").startswith("make ")]
    assert made
    assert {target for names in made for target in names} <= targets
