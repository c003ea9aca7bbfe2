from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from podproof.cli import main
from podproof.testing import Cluster

COMMANDS = ["demo", "doctor", "call", "inspect", "report", "manifests", "serve", "completion"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert text.startswith(f"usage: podproof {command}")
    assert command == "demo" or f"podproof {command}" in text.partition("examples:")[2]


def test_each_command_has_one_line_in_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.partition("  COMMAND\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == COMMANDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["doctor", "--as", "bob"], "'bob' is not of the form NAMESPACE/NAME"),
        (["doctor", "--as", "a/b/c"], "not of the form"),
        (["doctor", "--namespace", "default"], "--namespace needs --as NAME"),
        (["doctor", "-n", "shop", "--as", "default/bob"], "--namespace shop contradicts --as default/bob"),
        (["doctor", "--timeout", "0"], "expected seconds above 0 and up to 300"),
        (["doctor", "--timeout", "soon"], "expected seconds above 0 and up to 300"),
        (["manifests", "--audience", "a/b"], "cannot name a token's directory"),
        (["manifests", "--audience", 'a"\nb'], "cannot name a token's directory"),
        (["completion", "ed"], "invalid choice"),
    ],
)
def test_invalid_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_command_that_fails_explains_why_and_exits_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "/nowhere"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        "podproof inspect: /nowhere cannot be read: No such file or directory\n",
    )


def test_a_token_is_inspected(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = cluster.pod("default/alice-1", service_account="alice").token("bob")
    monkeypatch.setattr("sys.stdin", io.StringIO(token))
    assert main(["inspect"]) == 0
    assert "calling bob as default/alice, only from pod default/alice-1" in capsys.readouterr().out


def test_manifests_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "manifests --caller default/alice --audience bob --server default/bob --policy rbac --only rbac"
    assert main(arguments.split()) == 0
    assert "subjectaccessreviews" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_a_shell_can_complete_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)


def test_bash_completes_with_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    ask = f"source {script}; COMP_WORDS=(podproof doctor --s); COMP_CWORD=2; _shtab_podproof; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--side"]


def test_completion_without_shtab_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'podproof[completion]'" in capsys.readouterr().err


def test_the_doctor_examines_its_own_environment(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.service_account("default/bob")
    assert main(["doctor", "--json", "--audience", "bob", "--timeout", "10"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == "warn"
    assert [one["message"] for one in report["findings"] if one["level"] != "ok"] == [
        "checked for the kubeconfig's user; the app in its pod has its own permissions"
    ]


def test_the_doctor_impersonates_a_service_account(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.service_account("default/bob")
    assert main(["doctor", "--as", "default/bob", "--audience", "bob"]) == 2
    text = capsys.readouterr().out
    assert "default/bob may not create tokenreviews" in text
    assert text.splitlines()[-1] == "1 fail, 1 warn, 5 ok"


@pytest.mark.parametrize("namespace", [["--as", "default/bob"], ["-n", "default", "--as", "bob"], ["-n", "default"]])
def test_the_namespace_of_the_service_account_can_be_given_by_an_option(
    namespace: list[str], cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = namespace if "--as" in namespace else [*namespace, "--as", "default/bob"]
    assert main(["doctor", *arguments, "--audience", "bob"]) == 2
    assert "default/bob" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--kubeconfig", "--context"])
def test_the_doctor_uses_the_kubeconfig_and_context_of_the_options(
    option: str,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(cluster.kubeconfig.read_text())
    document["contexts"][0]["name"] = "staging"
    document["current-context"] = "staging" if option == "--kubeconfig" else "another"
    file = tmp_path / ".kube/config"
    file.parent.mkdir()
    file.write_text(json.dumps(document))
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")  # in a pod, too
    value = str(file) if option == "--kubeconfig" else "staging"
    main(["doctor", option, value, "--audience", "bob", "--side", "server"])
    assert f"the context staging of {file}" in capsys.readouterr().out


def test_the_doctor_without_any_kubeconfig_says_what_it_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["doctor", "--audience", "bob"]) == 2
    assert "no API server configuration found" in capsys.readouterr().out


SERVER_PACKAGES = ("kubernetes", "yaml", "jwt", "cachetools", "werkzeug", "starlette", "anyio")


def run_without(blocked: Iterable[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an interpreter that cannot import some packages."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({tuple(blocked)})); from podproof.cli import main;"
        f"sys.exit(main({list(arguments)}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["manifests", "--server", "a/b", "--only", "rbac"],
        ["doctor", "--side", "caller", "--audience", "bob"],
        ["call", "http://127.0.0.1:9/"],
    ],
)
def test_a_callers_commands_run_without_the_servers_packages(arguments: list[str]) -> None:
    done = run_without(SERVER_PACKAGES, *arguments)
    assert done.stderr == ""
    assert done.stdout
    assert done.returncode == (0 if arguments[0] == "manifests" else 2)


def test_the_doctor_of_a_server_says_which_extra_is_missing() -> None:
    done = run_without(["kubernetes"], "doctor", "--side", "server", "--audience", "bob")
    assert (done.returncode, done.stderr) == (
        1,
        "podproof doctor needs packages that are not installed (kubernetes): pip install 'podproof[server]'\n",
    )


@pytest.mark.parametrize("arguments", [["manifests", "--server", "a/b", "--audience", "bob"], ["--help"]])
def test_a_closed_pipe_ends_a_command_quietly(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "podproof", *arguments]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()  # before the command prints: it has to load itself first
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141
