"""Commands in the documentation: each is read as its program reads it, and the names in it are looked up."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import uvicorn
import yaml
from gunicorn.config import Config  # type: ignore[import-untyped]
from packaging.requirements import Requirement

from podproof.cli import main
from podproof.cli.parser import build_parser
from podproof.options import PREFIX, Options
from tests.support.markdown import ROOT

MANIFESTS: list[dict[str, Any]] = [
    document
    for path in sorted((ROOT / "manifests").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
VARIABLES = {"BOB_URL", "FORWARDED_ALLOW_IPS"} | {PREFIX + option.name.upper() for option in fields(Options)}


def check_line(line: str) -> None:
    """Check each command of a line, which may be a pipeline.

    Raises AssertionError, CalledProcessError or SystemExit.
    """
    words = shlex.split(line, comments=True)
    command: list[str] = []
    for word in [*words, "|"]:
        if word != "|":
            command.append(word)
        elif command:
            check_command(command)
            command = []


def check_command(words: Sequence[str]) -> None:
    """Check one command."""
    while assignment := re.fullmatch(r"(\w+)=.*", words[0]):
        assert assignment[1] in VARIABLES, f"nothing reads {assignment[1]}"
        words = words[1:]
    program, *arguments = words
    assert program in _CHECKS, f"there is no check for {program}: add one to tests/support/shell_commands.py"
    _CHECKS[program](arguments)


def _check_make(arguments: Sequence[str]) -> None:
    subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)


def _check_pip(arguments: Sequence[str]) -> None:
    assert arguments[0] == "install"
    for argument in arguments[1:]:
        requirement = Requirement(argument)
        assert requirement.name in ("podproof", "pytest")
        assert requirement.extras <= EXTRAS.keys(), f"{argument} names an extra that pyproject.toml does not have"


def _check_podproof(arguments: Sequence[str]) -> None:
    options = build_parser().parse_args(arguments)
    if options.command == "manifests":
        assert main(arguments) == 0


def _check_python(arguments: Sequence[str]) -> None:
    if arguments[0] != "-m":
        assert (ROOT / arguments[0]).is_file(), f"there is no {arguments[0]}"
        return
    assert arguments[1] == "podproof"
    _check_podproof(arguments[2:])


def _check_uvicorn(arguments: Sequence[str]) -> None:
    uvicorn.main.make_context("uvicorn", list(arguments))


def _check_gunicorn(arguments: Sequence[str]) -> None:
    Config().parser().parse_args(arguments)


def _check_curl(arguments: Sequence[str]) -> None:
    flag, header, url = arguments
    assert flag == "-H"
    token = re.fullmatch(r"Authorization: Bearer \$\(cat (.*)/token\)", header)
    assert token is not None
    [mount] = _container("alice")["volumeMounts"]
    assert token[1] == mount["mountPath"]
    service = re.fullmatch(r"http://(\w+)/whoami", url)
    assert service is not None
    assert _exists("Service", service[1])


def _check_kubectl(arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["apply", "-k", folder]:
            assert (ROOT / folder / "kustomization.yaml").is_file()
        case ["apply", "-f", "-"]:
            pass
        case ["exec", target, "--", *command]:
            assert _exists("Deployment", target.removeprefix("deployment/"))
            check_command(command)
        case ["logs", target, "--since", "24h"]:
            assert _exists("Deployment", target.removeprefix("deployment/"))
        case ["create", "token", account, "--audience", "bob"]:
            assert _exists("ServiceAccount", account)
        case _:
            raise AssertionError(f"there is no check for kubectl {arguments[0]}")


def _exists(kind: str, name: str) -> bool:
    return any(one["kind"] == kind and one["metadata"]["name"] == name for one in MANIFESTS if "metadata" in one)


def _container(app: str) -> dict[str, Any]:
    [deployment] = [one for one in MANIFESTS if one["kind"] == "Deployment" and one["metadata"]["name"] == app]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


_CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "curl": _check_curl,
    "gunicorn": _check_gunicorn,
    "kubectl": _check_kubectl,
    "make": _check_make,
    "pip": _check_pip,
    "podproof": _check_podproof,
    "python": _check_python,
    "uvicorn": _check_uvicorn,
}
