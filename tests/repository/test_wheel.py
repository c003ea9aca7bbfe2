"""The wheel as users get it: installed into an empty environment with each combination of extras, and used there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from podproof._extras import EXTRAS
from tests.support.installed_sizes import INSTALLED

pytestmark = pytest.mark.usefixtures("without_coverage")

FRAMEWORKS = ["wsgi", "asgi", "flask", "starlette", "fastapi", "litestar", "quart", "mcp"]
PROGRAMS = Path(__file__).with_name("installed_programs.py")
REPOSITORY = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
KUBECONFIG = """\
{"apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "me", "user": {"token": "mine"}}],
 "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:9"}}],
 "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}]}
"""
"""Of an API server that is not there: what has no token is denied without it."""


def run(*command: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: os.environ[name] for name in os.environ if not name.startswith(("COVERAGE", "PYTEST", "PODPROOF"))
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def succeed(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Run a command that must succeed, and return what it printed."""
    done = run(*command, cwd=cwd, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class VirtualEnvironment:
    """A virtual environment with podproof's wheel and what it asked for."""

    folder: Path

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment, in an empty folder."""
        cwd = self.folder / "empty"
        cwd.mkdir(exist_ok=True)
        environ = {"KUBECONFIG": self.folder / "kubeconfig", "PYTHONPYCACHEPREFIX": self.folder.parent / "bytecode"}
        program = self.folder / "bin" / command[0]
        return run(program, *command[1:], cwd=cwd, **{name: str(path) for name, path in environ.items()})

    def program(self, *names: str) -> str:
        """Run some of the programs in one process, and return what they printed."""
        done = self.run("python", "-W", "error", PROGRAMS, *names)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def distributions(self) -> list[str]:
        return sorted(path.name.partition("-")[0] for path in self._packages.glob("*.dist-info"))

    @property
    def size(self) -> float:
        """The size of all packages in megabytes."""
        return sum(path.stat().st_size for path in self._packages.rglob("*")) / 1e6

    @property
    def _packages(self) -> Path:
        [packages] = self.folder.glob("lib/*/site-packages")
        return packages


Install = Callable[..., VirtualEnvironment]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    succeed(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=REPOSITORY)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where each test's environment is, at the same path: what one has compiled serves the next."""
    return tmp_path_factory.mktemp("installed")


@pytest.fixture
def install(wheel: Path, folder: Path, record_property: Callable[[str, object], None]) -> Install:
    """Make an environment of the wheel, with these extras and packages."""

    def install(extras: str = "", *packages: str) -> VirtualEnvironment:
        environment = VirtualEnvironment(folder / "environment")
        name = f"podproof[{extras}]" if extras else "podproof"
        succeed(UV, "venv", "--quiet", "--clear", "--python", sys.executable, environment.folder, cwd=folder)
        uv = (UV, "pip", "install", "--quiet", "--python", environment.folder)
        succeed(*uv, f"{name} @ {wheel.as_uri()}", *packages, cwd=folder)
        (environment.folder / "kubeconfig").write_text(KUBECONFIG)
        size = f"{len(environment.distributions)} distributions, {environment.size:.0f} MB"
        record_property(INSTALLED, f"{' '.join([name, *packages])}: {size}")
        return environment

    return install


def test_the_base_is_the_caller_s_half(install: Install) -> None:
    base = install()
    assert set(base.distributions) <= {"certifi", "charset_normalizer", "idna", "podproof", "requests", "urllib3"}
    assert base.size < 6
    assert base.program("base") == "True\n"


def test_a_door_without_its_extra_says_what_to_install(install: Install) -> None:
    base = install()
    lines = base.program("missing").splitlines()
    needs = r"podproof\.(\w+) needs packages that are not installed \([\w, -]+\): "
    shape = re.compile(needs + r"pip install 'podproof\[(\w+)\]'")
    parts = {match[1]: match[2] for line in lines if (match := shape.fullmatch(line))}
    modules = {path.stem for path in (REPOSITORY / "src/podproof").glob("*.py")}
    doors = {extra: extra for extra in EXTRAS if extra in modules}
    assert parts == doors | {"testing": "testing", "grpc": "grpc"}
    assert len(lines) == len(parts)


def test_the_command_without_an_extra_does_what_it_can(install: Install) -> None:
    base = install()
    assert base.run("podproof", "--help").stdout.startswith("usage: podproof")
    assert base.run("podproof", "manifests", "--server", "default/bob", "--only", "rbac").returncode == 0
    assert base.run("python", "-m", "podproof", "--version").stdout.startswith("podproof ")
    for command, extras in (("demo", "testing,wsgi"), ("doctor", "server"), ("completion bash", "completion")):
        done = base.run("podproof", *command.split())
        assert (done.returncode, done.stdout) == (1, "")
        name = command.split()[0]
        assert done.stderr.startswith(f"podproof {name} needs packages that are not installed (")
        assert done.stderr.endswith(f"): pip install 'podproof[{extras}]'\n")


def test_pytest_runs_beside_the_base_and_a_fixture_says_what_to_install(install: Install) -> None:
    base = install("", "pytest")
    tests = base.folder / "test_app.py"
    tests.write_text("def test_other(): pass\n")
    done = base.run("python", "-m", "pytest", "-q", tests)
    assert done.returncode == 0, done.stdout
    tests.write_text("def test_app(podproof_cluster): pass\n")
    assert "pip install 'podproof[testing]'" in base.run("python", "-m", "pytest", "-q", tests).stdout


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_app_with_its_extra_denies_a_caller_without_a_token(install: Install, framework: str) -> None:
    assert install(framework).program(framework) == "200 401\n"


@pytest.mark.parametrize("framework", ["django", "falcon"])
def test_an_app_of_both_kinds_denies_a_caller_without_a_token(install: Install, framework: str) -> None:
    assert install(framework).program(framework) == "401 401\n"


def test_a_grpc_service_denies_a_caller_without_a_token(install: Install) -> None:
    assert install("grpc").program("grpc") == "UNAUTHENTICATED\n"


def test_a_grpc_client_needs_nothing_of_the_server_s_half(install: Install) -> None:
    assert install("", "grpcio").program("grpc_client") == "4 interceptors, and False\n"


def test_the_emulated_cluster_issues_tokens(install: Install) -> None:
    assert install("testing").program("testing") == "a token of 3 parts\n"


def test_the_demo_runs_with_the_extras_that_it_names(install: Install) -> None:
    environment = install("testing,wsgi")
    done = environment.run("podproof", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrong-address" in done.stdout


def test_decisions_are_counted_with_prometheus(install: Install) -> None:
    assert install("wsgi,prometheus").program("prometheus") == "200 401\nTrue\n"


def test_requests_are_served_within_a_span_of_opentelemetry(install: Install) -> None:
    assert install("wsgi,otel").program("otel") == "200 401\n"


def test_a_shell_can_complete_the_command(install: Install) -> None:
    done = install("completion").run("podproof", "completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")
    assert "podproof" in done.stdout


def test_all_is_everything(install: Install) -> None:
    everything = install("all")
    assert everything.program("missing", "base", *FRAMEWORKS) == "True\n" + "200 401\n" * len(FRAMEWORKS)
    assert everything.program("django", "falcon", "testing") == "401 401\n" * 2 + "a token of 3 parts\n"
    assert everything.run("podproof", "demo").returncode == 0


def test_the_wheel_has_the_manifests_and_the_dashboard(wheel: Path) -> None:
    with ZipFile(wheel) as file:
        names = file.namelist()
        for path in (REPOSITORY / "manifests").iterdir():
            assert file.read(f"podproof/manifests/{path.name}") == path.read_bytes()
    assert "podproof/py.typed" in names
    assert not [name for name in names if not name.startswith(("podproof/", "podproof-"))]
