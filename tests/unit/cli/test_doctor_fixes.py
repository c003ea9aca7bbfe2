"""Situations in which the doctor suggests a fix: the fix is applied literally, and the doctor runs again."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from base64 import b64encode
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from podproof.cli import main
from podproof.cli.finding import Finding, Level
from podproof.cli.report import format_findings
from podproof.testing import Cluster
from tests.support.doctor_env import (
    ALICE_SPEC,
    BOB_SPEC,
    CREDENTIAL_DIRECTORY,
    DoctorEnv,
    in_caller_pod,
    in_server_pod,
    outside_cluster,
)


def only_problem(doctor_env: DoctorEnv) -> Finding:
    """Return the one finding that is not ok."""
    findings = doctor_env.findings()
    problems = [finding for finding in findings if finding.level is not Level.OK]
    assert len(problems) == 1, format_findings(findings)
    return problems[0]


def assert_fixed(doctor_env: DoctorEnv) -> None:
    findings = doctor_env.findings()
    assert {finding.level for finding in findings} == {Level.OK}, format_findings(findings)


def app_container(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**deepcopy(spec["containers"][0]), **changes}


def apply_set_env(fix: str, variables: dict[str, str]) -> None:
    """Do what the `kubectl set env` in a fix does."""
    command = re.search(r"kubectl set env deployment/NAME (\S+)", fix)
    assert command, fix
    name, assigned, value = command[1].partition("=")
    if assigned:
        variables[name] = value
    else:
        del variables[name.removesuffix("-")]


def apply_yaml(fix: str, target: dict[str, Any]) -> None:
    """Merge the YAML in a fix into a part of a pod's spec, without the line that says where it belongs."""
    text = fix.partition(":\n")[2] if fix.startswith("In ") else fix
    target |= yaml.safe_load(text)


# Behind shells and wrappers


@pytest.mark.parametrize(
    "command",
    [
        ["python", "/usr/local/bin/fastapi", "run", "bob.py"],
        ["opentelemetry-instrument", "uvicorn", "--host", "0.0.0.0", "bob:app"],
        ["sh", "-c", "exec uvicorn --host 0.0.0.0 bob:app"],
    ],
)
def test_a_server_that_trusts_forwarded_headers_is_fixed_by_its_flag(
    command: list[str], cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, command=command, args=None)]}
    problem = only_problem(doctor_env)
    assert "trusts X-Forwarded-For from 127.0.0.1" in problem.message
    flag = shlex.split(problem.fix)[-1]
    doctor_env.spec["containers"][0]["command"][-1] += f" {flag}" if command[0] == "sh" else ""
    doctor_env.spec["containers"][0]["args"] = [flag] if command[0] != "sh" else []
    assert_fixed(doctor_env)


def test_fastapi_dev_listens_on_the_loopback_and_is_fixed_by_its_flag(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    command = ["fastapi", "dev", "--no-proxy-headers"]
    doctor_env.start_process(*command)
    problem = only_problem(doctor_env)
    assert problem.message == "fastapi dev listens on 127.0.0.1 only: other pods cannot reach it"
    doctor_env.start_process(*command, *problem.fix.split()[2:])
    assert_fixed(doctor_env)


@pytest.mark.parametrize("script", ["true && X=1 uvicorn {}", "uvicorn {}"])
def test_a_shell_as_pid_1_is_fixed_by_exec(script: str, cluster: Cluster, tmp_path: Path) -> None:
    arguments = ["--host=0.0.0.0", "--no-proxy-headers", "bob:app"]
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.start_process("/bin/sh", "-c", script.format(shlex.join(arguments)))
    doctor_env.start_process("python", "/venv/bin/uvicorn", *arguments, pid=7)
    problem = only_problem(doctor_env)
    assert (problem.level, problem.message[:21]) == (Level.WARN, "PID 1 is the shell /b")

    container: dict[str, Any] = {}
    apply_yaml(problem.fix, container)
    server = tmp_path / "bin/uvicorn"
    server.parent.mkdir()
    server.write_text('#!/bin/sh\necho $$ "$@"')
    server.chmod(0o755)
    environ = {"PATH": f"{server.parent}:/usr/bin:/bin"}
    with subprocess.Popen(container["command"], env=environ, stdout=subprocess.PIPE, text=True) as shell:
        printed = shell.communicate()[0].split()
    assert printed == [str(shell.pid), *arguments], "the server has the process id of the shell"
    (tmp_path / "proc/7/cmdline").unlink()
    doctor_env.start_process("python", "/venv/bin/uvicorn", *arguments)
    assert_fixed(doctor_env)


@pytest.mark.parametrize("command", [["sh", "start.sh"], ["sh", "-c", "uvicorn bob:app | tee log"], ["bash"]])
def test_for_a_shell_as_pid_1_with_an_unknown_script_exec_is_suggested(
    command: list[str], cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.start_process("uvicorn", "--host=0.0.0.0", "--no-proxy-headers", "bob:app", pid=7)
    doctor_env.start_process(*command)
    problem = next(finding for finding in doctor_env.findings() if "PID 1" in finding.message)
    assert "exec SERVER" in problem.fix


def test_from_outside_a_shell_that_waits_for_the_server_is_fixed_by_exec(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    server = "uvicorn --host 0.0.0.0 --no-proxy-headers bob:app"
    container = app_container(BOB_SPEC, command=["sh", "-c", f"{server} & wait"], args=[])
    doctor_env.spec = {"containers": [container]}
    problem = only_problem(doctor_env)
    assert "a shell starts uvicorn and waits for it" in problem.message
    container["command"][2] = problem.fix.splitlines()[-1].replace("SERVER ...", server)
    assert_fixed(doctor_env)


def test_from_outside_a_command_in_the_image_is_skipped(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, command=None, args=None)]}
    problem = only_problem(doctor_env)
    assert (problem.level, problem.fix.splitlines()[-1]) == (Level.SKIP, "kubectl exec POD -- podproof doctor")


# Variables from elsewhere


def from_config_map(name: str, **more: Any) -> dict[str, Any]:
    return {"configMapRef": {"name": name, **more}}


@pytest.mark.parametrize("kind", ["configmaps", "secrets"])
def test_options_from_a_config_map_or_secret_are_checked(kind: str, cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    reference = {"configmaps": "configMapRef", "secrets": "secretRef"}[kind]
    source = {"prefix": "PODPROOF_", reference: {"name": "bob"}}
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, env=None, envFrom=[source])]}
    data = {"AUDIENCE": "bob", "ALLOW": "default/alice"}
    if kind == "secrets":
        data = {name: b64encode(value.encode()).decode() for name, value in data.items()}
    doctor_env.documents[f"{kind}/bob"] = {"data": data}
    findings = doctor_env.findings()
    assert {finding.level for finding in findings} == {Level.OK}, format_findings(findings)
    assert "audience bob; allow (default/alice)" in format_findings(findings)


def value_from(name: str, kind: str, /, **reference: Any) -> dict[str, Any]:
    return {"name": name, "valueFrom": {kind: reference}}


def test_single_variables_from_elsewhere_are_checked(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    env = [
        value_from("NAMESPACE", "fieldRef", fieldPath="metadata.namespace"),
        value_from("LABEL", "fieldRef", fieldPath="metadata.labels['app']"),
        value_from("CPU", "resourceFieldRef", resource="limits.cpu"),
        value_from("HOST", "configMapKeyRef", name="bob", key="host"),
        value_from("NOT_THERE", "configMapKeyRef", name="bob", key="other", optional=True),
        value_from("NOWHERE", "configMapKeyRef", name="carol", key="other", optional=True),
        value_from("PASSWORD", "secretKeyRef", name="bob", key="password"),
        value_from("PODPROOF_AUDIENCE", "secretKeyRef", name="bob", key="audience"),
        {"name": "PODPROOF_ALLOW", "value": "$(NAMESPACE)/alice"},
        {"name": "EMPTY"},
    ]
    command = ["uvicorn", "--host", "$(HOST)", "$$(HOST)", "$(UNKNOWN)", "--no-proxy-headers"]
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, env=env, command=command, args=[])]}
    doctor_env.documents["configmaps/bob"] = {"data": {"host": "127.0.0.1"}}
    doctor_env.documents["secrets/bob"] = {"data": {"audience": b64encode(b"bob").decode()}}
    problem = only_problem(doctor_env)
    assert problem.message == "default/bob-1: uvicorn listens on 127.0.0.1 only: other pods cannot reach it"
    doctor_env.documents["configmaps/bob"]["data"]["host"] = problem.fix.split()[-1]
    assert_fixed(doctor_env)
    doctor_env.documents["secrets/bob"] = {"data": {"other": ""}}
    assert "the key audience of the Secret default/bob does not exist" in format_findings(doctor_env.findings())


def test_a_config_map_that_may_not_be_read_is_reported_and_not_taken_for_missing_options(
    cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    cluster.fail(403, path="*/configmaps/bob")
    sources = [from_config_map("bob"), from_config_map("bob")]
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, env=[], envFrom=sources)]}
    problems = [finding for finding in doctor_env.findings() if finding.level is not Level.OK]
    assert [(problem.level, problem.subject) for problem in problems] == [
        (Level.WARN, "options"),
        (Level.SKIP, "options"),
    ]
    assert "the variables from the ConfigMap default/bob were not checked" in problems[0].message
    assert "kubectl exec --namespace default bob-1 -- podproof doctor" in problems[0].fix
    assert "the audience is not in the variables that could be read" in problems[1].message
    doctor_env.audience = problems[1].fix.split()[-1]
    assert "not checked" in only_problem(doctor_env).message


def test_a_config_map_that_does_not_exist_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, envFrom=[from_config_map("bob")])]}
    assert "the ConfigMap default/bob does not exist" in only_problem(doctor_env).message
    doctor_env.documents["configmaps/bob"] = {"data": None}
    assert_fixed(doctor_env)
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, envFrom=[from_config_map("carol", optional=True)])]}
    assert_fixed(doctor_env)


# Volumes and sidecars


@pytest.mark.parametrize("option", ["subPath", "subPathExpr"])
def test_a_token_mounted_with_sub_path_is_fixed_by_the_suggested_mount(
    option: str, cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.acting_as, doctor_env.side = "default/alice", "caller"
    container = app_container(ALICE_SPEC, volumeMounts=[{"name": "token", "mountPath": "/t", option: "token"}])
    doctor_env.spec = {"containers": [container]}
    problem = only_problem(doctor_env)
    assert f"mounted with {option}: it is never renewed" in problem.message
    apply_yaml(problem.fix, container)
    assert_fixed(doctor_env)


@pytest.mark.parametrize("projected", [None, {}, {"sources": None}, {"sources": [{"serviceAccountToken": None}]}])
def test_empty_fields_of_a_spec_are_no_error(projected: Any, cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.acting_as, doctor_env.side = "default/alice", "caller"
    doctor_env.spec = {"volumes": [{"name": "token", "projected": projected}], "initContainers": None}
    assert "no volume projects a token" in only_problem(doctor_env).message
    doctor_env.spec = {"volumes": None, "containers": [{"name": "app", "env": None, "volumeMounts": None}]}
    assert "no volume projects a token" in only_problem(doctor_env).message


@pytest.mark.parametrize(
    "sidecar",
    [
        {"name": "queue-proxy", "image": "gcr.io/knative-releases/queue@sha256:0"},
        {"name": "auth", "image": "quay.io/oauth2-proxy/oauth2-proxy:v7.6.0"},
    ],
)
def test_a_reverse_proxy_sidecar_is_fixed_by_trusting_it(
    sidecar: dict[str, Any], cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.spec = {"containers": [app_container(BOB_SPEC), sidecar]}
    problem = only_problem(doctor_env)
    assert "come from this pod itself" in problem.message
    variables: dict[str, str] = {}
    apply_set_env(problem.fix, variables)
    env = doctor_env.spec["containers"][0]["env"]
    env += [{"name": name, "value": value} for name, value in variables.items()]
    assert_fixed(doctor_env)


# A caller's files and variables


@pytest.mark.parametrize("unreadable", ["token", "directory"])
def test_a_token_that_the_user_may_not_read_is_fixed_by_a_group(
    unreadable: str, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: Path, *_: object) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    doctor_env = in_caller_pod(cluster, tmp_path)
    monkeypatch.setattr(Path, "read_bytes", deny)
    if unreadable == "directory":
        exists = Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: deny(path) if path.name == "token" else exists(path))
    findings = doctor_env.findings()
    assert {finding.message.rpartition(" ")[2] for finding in findings} == {"denied"}
    spec: dict[str, Any] = {}
    assert findings[0].fix.startswith("In the pod's spec (")
    apply_yaml(findings[0].fix, spec)
    assert spec["securityContext"]["fsGroup"] > 0
    monkeypatch.undo()  # what the kubelet does with this group
    assert_fixed(doctor_env)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HTTP_PROXY": "http://user:secret@proxy:3128"}, "proxy:3128 sees the token of each call over http, and"),
        ({"https_proxy": "proxy:3128"}, "the proxy proxy:3128 replaces this pod's address"),
        ({"ALL_PROXY": "socks5://proxy", "NO_PROXY": "bob,.svc"}, "the proxy proxy sees"),
    ],
)
@pytest.mark.parametrize("place", ["in the pod", "from outside"])
def test_a_callers_proxy_is_fixed_by_no_proxy(
    place: str, variables: dict[str, str], message: str, cluster: Cluster, tmp_path: Path
) -> None:
    variables = dict(variables)
    if place == "in the pod":
        doctor_env = in_caller_pod(cluster, tmp_path)
        doctor_env.variables |= variables
    else:
        doctor_env = outside_cluster(cluster, tmp_path)
        doctor_env.acting_as = "default/alice"
        doctor_env.spec = {"containers": [app_container(ALICE_SPEC, env=listed(variables))]}
    problem = only_problem(doctor_env)
    assert message in problem.message
    assert "secret" not in problem.message
    apply_set_env(problem.fix, variables)
    doctor_env.variables |= variables if place == "in the pod" else {}
    doctor_env.spec = {"containers": [app_container(ALICE_SPEC, env=listed(variables))]}
    assert_fixed(doctor_env)


def listed(variables: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


# The kubeconfig and its exec plugin


def write_kubeconfig(doctor_env: DoctorEnv, **user: Any) -> Path:
    """Write a kubeconfig of the cluster, whose user is changed, and use it."""
    document = yaml.safe_load(doctor_env.cluster.kubeconfig.read_text())
    if user:
        document["users"][0]["user"] = user
    file = doctor_env.write("home/kubeconfig", yaml.safe_dump(document))
    doctor_env.variables["KUBECONFIG"] = str(file)
    return file


def plugin(script: str, **more: Any) -> dict[str, Any]:
    version = "client.authentication.k8s.io/v1"
    return {"apiVersion": version, "command": "sh", "args": ["-c", script], **more}


def print_credential(token: str) -> str:
    status = {"token": token} if token else {}
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"echo '{json.dumps(credential)}'"


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9Cg.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("broken", "message", "fix"),
    [
        (plugin("echo 'log in first' >&2; exit 3"), "failed with exit status 3: log in first", "sh -c"),
        (plugin(f"echo 'bad token {JWT}' >&2; exit 1"), "exit status 1: bad token TOKEN", "sh -c"),
        (plugin("exit 1"), "failed with exit status 1", "sh -c"),
        (plugin("sleep 60"), "printed no credential within 0.2 s", "sleep 60"),
        (plugin("echo nothing"), "printed no ExecCredential", "Run it"),
        (plugin(print_credential("")), "printed no ExecCredential", "Run it"),
        (plugin("", command="no-such-plugin"), "no-such-plugin cannot be started: No such file", "Install"),
        (plugin("", command="no-such-plugin", installHint="brew install it"), "cannot be started", "brew install it"),
    ],
)
def test_an_exec_plugin_that_gives_no_credential_is_the_only_finding(
    broken: dict[str, Any], message: str, fix: str, cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    write_kubeconfig(doctor_env, exec=broken)
    doctor_env.timeout = 0.2
    (problem,) = doctor_env.findings()
    assert (problem.level, problem.subject) == (Level.FAIL, "credential")
    assert message in problem.message
    assert fix in problem.fix
    assert "eyJ" not in problem.message

    doctor_env.timeout = 5.0
    write_kubeconfig(doctor_env, exec=plugin(print_credential(token), env=[{"name": "REGION", "value": "eu"}]))
    findings = doctor_env.findings()
    assert {finding.level for finding in findings} == {Level.OK}, format_findings(findings)
    assert "its credential by the exec plugin sh" in findings[0].message


def test_a_kubeconfig_that_is_missing_beside_others_is_fixed_by_the_list_without_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.variables["KUBECONFIG"] = f"/nowhere:{write_kubeconfig(doctor_env)}:"
    problem = only_problem(doctor_env)
    assert (problem.level, problem.message[:26]) == (Level.WARN, "KUBECONFIG names /nowhere,")
    doctor_env.variables["KUBECONFIG"] = problem.fix.partition("=")[2]
    assert_fixed(doctor_env)


def test_in_a_pod_a_kubeconfig_that_does_not_exist_is_fixed_by_unsetting_it(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables["KUBECONFIG"] = "/nowhere"
    problem = only_problem(doctor_env)
    assert problem.message == "KUBECONFIG names /nowhere, which does not exist"
    apply_set_env(problem.fix, doctor_env.variables)
    assert_fixed(doctor_env)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("]", "is not a kubeconfig"),
        ("text", "is not a kubeconfig"),
        ("contexts: [{}]", "is not a kubeconfig"),
        ("contexts: []", "the kubeconfig has no current context"),
        ("contexts: [{name: a}]\ncurrent-context: b", "the kubeconfig has no context b: expected one of a"),
    ],
)
def test_an_invalid_kubeconfig_is_reported(text: str, message: str, cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    write_kubeconfig(doctor_env).write_text(text)
    (problem,) = doctor_env.findings()
    assert message in problem.message
    assert "kubectl config get-contexts" in problem.fix


def test_a_kubeconfig_that_cannot_be_read_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.variables["KUBECONFIG"] = str(tmp_path)
    assert "cannot be read: Is a directory" in doctor_env.findings()[0].message


# A caller's pod without a volume


def test_in_a_callers_pod_without_a_token_the_volume_is_suggested(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_caller_pod(cluster, tmp_path)
    token = (tmp_path / "var/run/secrets/podproof/bob/token").read_text()
    (tmp_path / "var/run/secrets/podproof/bob/token").unlink()
    doctor_env.start_process("python", "alice.py")
    problem = only_problem(doctor_env)
    assert "a caller lacks its volume" in problem.message
    assert problem.fix.splitlines() == [
        "podproof manifests --only caller --caller NAMESPACE/NAME --audience bob",
        "or, to examine it as the app that is called: podproof doctor --side server --audience bob",
    ]
    doctor_env.mount_token("bob", token)
    assert_fixed(doctor_env)


def test_from_outside_a_caller_without_a_volume_is_fixed_by_the_printed_manifest(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.acting_as, doctor_env.audience = "default/alice", "bob"
    doctor_env.spec = {"volumes": [], "containers": [app_container(ALICE_SPEC, volumeMounts=[])]}
    problem = only_problem(doctor_env)
    assert problem.message.endswith("a caller lacks its volume")
    assert "tokenreviews" not in problem.message + problem.fix
    assert main(problem.fix.splitlines()[0].split()[1:]) == 0
    _, deployment = yaml.safe_load_all(capsys.readouterr().out)
    doctor_env.spec = deployment["spec"]["template"]["spec"]
    assert_fixed(doctor_env)


def test_a_web_server_without_options_is_examined_as_a_server(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    for name in ("PODPROOF_AUDIENCE", "PODPROOF_TRUSTED_PROXIES"):
        del doctor_env.variables[name]
    doctor_env.variables["PODPROOF_SERVICE_HOST"] = "10.96.0.9"  # a Service called podproof
    problem = only_problem(doctor_env)
    assert "the audience is not set" in problem.message
    apply_set_env(problem.fix, doctor_env.variables)
    assert_fixed(doctor_env)


def test_the_credential_may_be_mounted_with_a_trailing_slash(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    mount = {"name": "api", "mountPath": f"/{CREDENTIAL_DIRECTORY}/"}
    doctor_env.spec = {"containers": [app_container(BOB_SPEC, volumeMounts=[mount])]}
    assert_fixed(doctor_env)
