"""The source distribution: everything that the repository's tests read is in it, and its metadata is in order."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("without_coverage")

REPOSITORY = Path(__file__).parents[2]
READ_BY_TESTS = ["package", "examples", "manifests", "security_policy", "traps", "benchmarks"]
"""The tests of this folder that read other folders; they import those that they need."""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both distributions into a folder."""
    folder = tmp_path_factory.mktemp("built")
    run("-m", "hatchling", "build", "-d", str(folder), cwd=REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        file.extractall(built, filter="data")
    return built / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def metadata(unpacked: Path) -> Message:
    return message_from_string((unpacked / "PKG-INFO").read_text())


def test_twine_accepts_both_distributions(built: Path) -> None:
    run("-m", "twine", "check", "--strict", *map(str, built.glob("podproof-*")), cwd=built)
    assert sorted(path.suffix for path in built.glob("podproof-*") if path.is_file()) == [".gz", ".whl"]


def test_it_has_every_file_of_the_repository(unpacked: Path) -> None:
    folders = ("src", "tests", "benchmarks", "docs", "examples", "manifests", ".ci", ".github")
    files = {path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
    files |= {path for path in REPOSITORY.iterdir() if path.suffix in (".md", ".toml") or path.name == "Makefile"}
    names = {str(path.relative_to(REPOSITORY)) for path in files if "__pycache__" not in path.parts}
    packed = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    generated = {"benchmarks/results.json"}
    assert names - packed <= generated


def test_its_tests_find_what_they_read(unpacked: Path) -> None:
    files = [f"tests/repository/test_{name}.py" for name in READ_BY_TESTS]
    chosen = "security_policy or manifests or traps"  # of what is collected, and so imported, these are run
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen, cwd=unpacked)


def test_the_metadata_names_no_address_that_is_not_ours_to_promise(metadata: Message) -> None:
    urls = [url.split(", ")[1] for url in metadata.get_all("Project-URL", [])]
    assert urls
    assert all(url.startswith("https://kubernetes.io/docs/") for url in urls)


def test_each_python_and_framework_that_is_tested_is_classified(metadata: Message) -> None:
    classifiers = metadata.get_all("Classifier", [])
    for framework in ("AsyncIO", "Django", "FastAPI", "Flask", "Pytest"):
        assert f"Framework :: {framework}" in classifiers
    workflow = (REPOSITORY / ".github/workflows/gate.yml").read_text()
    for minor in range(11, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
        assert f'"3.{minor}"' in workflow
