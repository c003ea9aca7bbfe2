from __future__ import annotations

import pytest

from podproof.cli.command_line import ServerCommand, find_server

ARGUMENTS = ["--host", "0.0.0.0", "bob:app"]
UVICORN = ["uvicorn", *ARGUMENTS]


@pytest.mark.parametrize(
    "command",
    [
        UVICORN,
        ["/venv/bin/uvicorn", *ARGUMENTS],
        ["python3.12", "-u", "-X", "dev", "-m", *UVICORN],
        ["/usr/bin/python3", "/usr/local/bin/uvicorn", *ARGUMENTS],
        ["opentelemetry-instrument", *UVICORN],
        ["opentelemetry-instrument", "--traces_exporter", "console", "python", "-m", *UVICORN],
        ["newrelic-admin", "run-program", *UVICORN],
        ["ddtrace-run", *UVICORN],
        ["poetry", "run", *UVICORN],
        ["uv", "run", "--no-sync", *UVICORN],
        ["tini", "--", *UVICORN],
        ["nice", "-n", "5", "env", "-i", *UVICORN],
        ["sh", "-c", "uvicorn --host 0.0.0.0 bob:app"],
        ["/bin/bash", "-lc", "exec uvicorn --host 0.0.0.0 bob:app"],
        ["busybox", "sh", "-c", "uvicorn --host 0.0.0.0 bob:app"],
        ["sh", "-c", "set -e; migrate && \\\n  exec 'uvicorn' --host 0.0.0.0 bob:app"],
        ["sh", "-ec", "migrate\nopentelemetry-instrument uvicorn --host ${HOST:-0.0.0.0} bob:app"],
        ["sh", "-c", "export HOST=0.0.0.0; uvicorn --host $HOST $APP"],
    ],
)
def test_a_server_is_found_behind_interpreters_wrappers_and_shells(command: list[str]) -> None:
    assert find_server(command, {"APP": "bob:app"}) == ServerCommand("uvicorn", ARGUMENTS)


@pytest.mark.parametrize(
    "command",
    [
        [],
        [""],
        ["python"],
        ["python", "app.py"],
        ["python", "-m", "pip", "install", "uvicorn"],
        ["uv", "pip", "install", "uvicorn"],
        ["tini", "--", "python", "app.py"],
        ["tini"],
        ["pytest", "uvicorn"],
        ["fastapi", "--version"],
        ["sh"],
        ["sh", "-c"],
        ["sh", "start.sh", "uvicorn"],
        ["sh", "-c", "echo uvicorn"],
        ["sh", "-c", "uvicorn 'unclosed"],
        ["sh", "-c", ""],
    ],
)
def test_other_commands_are_not_taken_for_servers(command: list[str]) -> None:
    assert find_server(command, {}) is None


@pytest.mark.parametrize("subcommand", ["run", "dev"])
def test_the_fastapi_command_is_a_server(subcommand: str) -> None:
    server = find_server(["fastapi", subcommand, "app.py"], {})
    assert server == ServerCommand(f"fastapi {subcommand}", [subcommand, "app.py"])


@pytest.mark.parametrize(
    "command", [["env", "UVICORN_HOST=0.0.0.0", "uvicorn"], ["sh", "-c", "UVICORN_HOST=0.0.0.0 exec uvicorn"]]
)
def test_variables_set_for_the_server_alone_are_known(command: list[str]) -> None:
    assert find_server(command, {}) == ServerCommand("uvicorn", [], {"UVICORN_HOST": "0.0.0.0"})


@pytest.mark.parametrize(
    ("script", "waited_for"),
    [
        ("uvicorn bob:app", False),
        ("migrate && uvicorn bob:app", False),
        ("uvicorn bob:app | tee log", True),
        ("uvicorn bob:app & wait", True),
        ("uvicorn bob:app; echo done", True),
        ("sh -c 'uvicorn bob:app; echo done'", True),
    ],
)
def test_a_shell_that_cannot_replace_itself_by_the_server_is_noticed(script: str, waited_for: bool) -> None:
    server = find_server(["sh", "-c", script], {})
    assert server is not None
    assert server.waited_for is waited_for


def test_a_gunicorn_that_changed_its_process_title_has_unknown_arguments() -> None:
    assert find_server(["gunicorn: master [bob:app]"], {}) == ServerCommand("gunicorn", None)
