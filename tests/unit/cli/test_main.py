from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from podproof.cli import main
from podproof.testing import Cluster

COMMANDS = ["demo", "doctor", "inspect", "manifests", "completion"]


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


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
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


def test_a_command_loads_only_what_it_needs() -> None:
    code = (
        "import sys; from podproof.cli import main; main(['manifests', '--server', 'a/b', '--only', 'rbac']);"
        "sys.exit(' '.join({'kubernetes', 'werkzeug', 'shtab', 'yaml', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
