from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import Endpoint
from podproof.cli.checks.api_server import check_api_server
from podproof.cli.checks.options import read_options
from podproof.cli.checks.web_server import check_web_servers
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, Level, fail, ok, skip, warn
from podproof.cli.report import format_findings, print_findings
from podproof.testing import Cluster
from tests.support.doctor_env import BOB_SPEC, CREDENTIAL_DIRECTORY, in_caller_pod, in_server_pod, outside_cluster
from tests.support.terminal import Terminal

FINDINGS = [
    ok("options", "audience bob"),
    warn("server", "uvicorn trusts X-Forwarded-For from 127.0.0.1", "uvicorn --no-proxy-headers"),
    fail("token", "the file is empty", "volumes:\n  - name: podproof"),
]


def test_findings_are_aligned_with_their_fix_below() -> None:
    assert format_findings(FINDINGS).splitlines() == [
        "ok    options  audience bob",
        "warn  server   uvicorn trusts X-Forwarded-For from 127.0.0.1",
        "               uvicorn --no-proxy-headers",
        "fail  token    the file is empty",
        "               volumes:",
        "                 - name: podproof",
        "",
        "1 fail, 1 warn, 1 ok",
    ]


def test_on_a_terminal_levels_are_coloured_and_messages_folded_but_not_fixes() -> None:
    assert format_findings(FINDINGS[:2], coloured=True, width=38).splitlines() == [
        "\x1b[32mok  \x1b[0m  options  audience bob",
        "\x1b[33mwarn\x1b[0m  server   uvicorn trusts",
        "               X-Forwarded-For from",
        "               127.0.0.1",
        "               \x1b[1muvicorn --no-proxy-headers\x1b[0m",
        "",
        "0 fail, 1 warn, 1 ok",
    ]


@pytest.mark.parametrize(("out", "coloured"), [(Terminal(), True), (io.StringIO(), False)])
def test_only_a_terminal_gets_colours_and_folded_lines(
    out: io.StringIO, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    finding = fail("options", "the audience is not set: expected PODPROOF_AUDIENCE", "kubectl set env")
    assert print_findings([finding], out, {"TERM": "xterm"}) == Level.FAIL
    text = out.getvalue()
    assert ("\x1b[31mfail" in text) is coloured
    assert ("the audience is not set: expected PODPROOF_AUDIENCE" in text) is not coloured


def messages(findings: list[Finding], subject: str) -> list[str]:
    return [finding.message for finding in findings if finding.subject == subject]


UVICORN = ["uvicorn", "--host=0.0.0.0", "bob:app"]


@pytest.mark.parametrize(
    ("command", "environ", "server"),
    [
        ([*UVICORN, "--forwarded-allow-ips="], {}, "uvicorn"),
        (UVICORN, {"FORWARDED_ALLOW_IPS": ""}, "uvicorn"),
        (UVICORN, {"UVICORN_PROXY_HEADERS": "false"}, "uvicorn"),
        (
            ["python", "-u", "-m", "uvicorn", "b:app"],
            {"UVICORN_HOST": "::", "UVICORN_FORWARDED_ALLOW_IPS": ""},
            "uvicorn",
        ),
        (["/usr/bin/python3", "/usr/bin/gunicorn", "-b", ":80", "b:app"], {}, "gunicorn"),
        (["gunicorn", "-k", "gthread", "--proxy-protocol", "off", "b:app"], {}, "gunicorn"),
        (["gunicorn", "b:app", "--bind"], {}, "gunicorn"),
        (["hypercorn", "-b", "0.0.0.0:80", "b:app"], {}, "hypercorn"),
        (["granian", "--host", "0.0.0.0", "b:app"], {}, "granian"),
        (["granian", "b:app"], {"GRANIAN_HOST": "::"}, "granian"),
    ],
)
def test_a_server_that_keeps_the_peer_address_is_ok(command: list[str], environ: dict[str, str], server: str) -> None:
    assert check_web_servers([command], environ) == [ok("server", f"{server} keeps the peer address")]


def test_the_workers_of_a_server_are_reported_once() -> None:
    assert len(check_web_servers([["gunicorn", "b:app"]] * 3, {})) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "the command is in the container's image: "),
        (["python", "app.py"], "no known web server in the command python app.py: "),
        (["sh", "-c", "x" * 90, "y", "uvicorn"], "no known web server in the command sh -c xxx"),
        (["gunicorn: master [bob:app]"], "gunicorn has changed its process title"),
        (["sh", "-c", "uvicorn --host $HOST"], "uvicorn listens on $HOST, a variable that is unknown here"),
    ],
)
def test_a_server_whose_options_are_not_visible_is_skipped_and_not_ok(command: list[str], message: str) -> None:
    finding = check_web_servers([command], {"FORWARDED_ALLOW_IPS": ""})[0]
    assert (finding.level, finding.message[: len(message)]) == (Level.SKIP, message)


def test_skipped_checks_are_counted_and_do_not_change_the_exit_status() -> None:
    out = io.StringIO()
    assert print_findings([skip("server", "not checked")], out, {}) == 0
    assert out.getvalue() == "skip  server  not checked\n\n0 fail, 0 warn, 0 ok, 1 skip\n"
    assert print_findings([skip("server", "not checked"), FINDINGS[1]], io.StringIO(), {}) == 1


def test_the_options_finding_names_what_decides_who_may_call(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables |= {"PODPROOF_ALLOW": "default/*", "PODPROOF_RULES_FILE": "/rules.yaml"}
    doctor_env.write("rules.yaml", "rules: [{path: /whoami, allow: [default/*]}]")
    assert messages(doctor_env.findings(), "options") == [
        "audience bob; allow (default/*) and rules_file decides who may call",
        f"the rules file {tmp_path / 'rules.yaml'} is valid",
    ]


NAMESPACES = "may not get namespaces"
GRANT = "podproof manifests --only rbac --server default/bob --namespace-labels | kubectl apply -f -"


@pytest.mark.parametrize(
    ("labels", "granted", "level"),
    [
        ("", False, Level.OK),
        (", namespace_labels: {env: prod}", False, Level.FAIL),
        (", namespace_labels: {env: prod}", True, Level.OK),
    ],
)
def test_rules_by_namespace_labels_need_the_permission_to_get_namespaces(
    cluster: Cluster, tmp_path: Path, labels: str, granted: bool, level: Level
) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables["PODPROOF_RULES_FILE"] = "/rules.yaml"
    doctor_env.write("rules.yaml", f"rules: [{{path: /whoami, allow: ['*/*']{labels}}}]")
    if granted:
        doctor_env.permissions["namespaces"] = "get"
    findings = doctor_env.findings()
    assert max(finding.level for finding in findings) is level
    assert [finding.fix for finding in findings if NAMESPACES in finding.message] == [GRANT] * (level is Level.FAIL)
    assert ("default/bob may get namespaces" in messages(findings, "permissions")) is granted


def test_an_invalid_rules_file_is_one_finding_and_asks_for_no_permission(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables["PODPROOF_RULES_FILE"] = "/rules.yaml"
    doctor_env.write("rules.yaml", "rules: 7")
    assert [finding.subject for finding in doctor_env.findings() if finding.level is not Level.OK] == ["options"]


@pytest.mark.parametrize("granted", [False, True])
def test_from_outside_the_rules_file_is_not_read_and_the_permission_is_named(
    cluster: Cluster, tmp_path: Path, granted: bool
) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    variables = [{"name": "PODPROOF_AUDIENCE", "value": "bob"}, {"name": "PODPROOF_RULES_FILE", "value": "/rules.yaml"}]
    doctor_env.spec = {"containers": [{**BOB_SPEC["containers"][0], "env": variables}]}
    if granted:
        doctor_env.permissions["namespaces"] = "get"
    findings = [finding for finding in doctor_env.findings() if NAMESPACES in finding.message]
    assert [finding.level for finding in findings] == [Level.OK] * (not granted)
    assert all(finding.message.endswith(f"if its rules file has namespace_labels: {GRANT}") for finding in findings)


def test_in_a_callers_pod_the_server_side_is_examined_only_on_request(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_caller_pod(cluster, tmp_path)
    assert {finding.subject for finding in doctor_env.findings()} == {"token"}
    doctor_env.side, doctor_env.audience = "both", "bob"
    assert messages(doctor_env.findings(), "credential") == [
        f"{tmp_path / CREDENTIAL_DIRECTORY / 'token'} does not exist: this app cannot call the API server"
    ]


def test_a_token_in_the_default_file_without_an_audience_is_checked(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_caller_pod(cluster, tmp_path)
    place = tmp_path / "var/run/secrets/podproof/token"
    place.symlink_to("bob/token")
    assert len(messages(doctor_env.findings(), "token")) == 2


def test_a_token_without_iat_is_checked_where_hostname_is_unset(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_caller_pod(cluster, tmp_path)
    del doctor_env.variables["HOSTNAME"]
    claims = {"aud": "bob", "exp": doctor_env.now() + 60, "kubernetes.io": {"pod": {"name": "alice-1"}}}
    doctor_env.mount_token("bob", cluster.sign(claims))
    (finding,) = doctor_env.findings()
    assert (finding.level, finding.message.partition(": ")[2][:9]) == (Level.OK, "for bob, ")


def test_a_pod_that_is_server_and_caller_is_examined_on_both_sides(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.mount_token("carol", cluster.pod("default/bob-1", service_account="bob").token("carol"))
    assert {"options", "permissions", "token"} <= {finding.subject for finding in doctor_env.findings()}


def test_in_a_pod_that_is_server_and_caller_the_audience_option_is_the_servers(
    cluster: Cluster, tmp_path: Path
) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.mount_token("carol", cluster.pod("default/bob-1", service_account="bob").token("carol"))
    del doctor_env.variables["PODPROOF_AUDIENCE"]
    doctor_env.side, doctor_env.audience = "both", "bob"
    findings = doctor_env.findings()
    assert {finding.level for finding in findings} == {Level.OK}
    assert messages(findings, "options") == ["audience bob; all authenticated callers are allowed"]
    assert len(messages(findings, "token")) == 1


def test_another_header_is_named_with_the_options() -> None:
    variables = {"PODPROOF_AUDIENCE": "bob", "PODPROOF_HEADER": "X-Pod-Authorization"}
    _, finding = read_options(variables, None)
    assert finding.message.startswith("audience bob; tokens in X-Pod-Authorization; ")


def test_without_any_kubeconfig_the_api_server_is_not_configured(tmp_path: Path, cluster: Cluster) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": ""}
    home = os.environ["HOME"]
    os.environ["HOME"] = str(tmp_path)
    try:
        findings = doctor_env.findings()
    finally:
        os.environ["HOME"] = home
    assert messages(findings, "api server")[0].startswith("no API server configuration found")


def test_a_process_that_ends_meanwhile_is_skipped(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    (tmp_path / "proc/77/cmdline").mkdir(parents=True)
    assert messages(doctor_env.findings(), "server") == ["uvicorn keeps the peer address"]


def test_a_pod_without_a_hosts_file_is_examined(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    (tmp_path / "etc/hosts").unlink()
    assert all(finding.level is Level.OK for finding in doctor_env.findings())


def test_a_proxy_before_the_api_server_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    class ProxiedClient(APIServerClient):
        def endpoint(self) -> Endpoint:
            return super().endpoint()._replace(proxy="proxy.example:3128")

    client = ProxiedClient()
    findings = list(check_api_server(Environment(lambda _: client, {})))
    client.close()
    (finding,) = [one for one in findings if one.level is not Level.OK]
    assert "through the proxy proxy.example:3128" in finding.message
    assert finding.fix == "kubectl set env deployment/NAME NO_PROXY=127.0.0.1"


def test_a_proxy_that_refuses_connections_is_reported_without_its_password(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    (finding,) = [one for one in doctor_env.findings() if one.level is not Level.OK]
    assert "ProxyError" in finding.message
    assert "NO_PROXY=" in finding.fix
    assert "secret" not in format_findings([finding])


def test_an_old_api_server_is_ok_with_a_remark_on_what_it_lacks(tmp_path: Path) -> None:
    with Cluster(version="1.20") as cluster:
        findings = in_server_pod(cluster, tmp_path).findings()
    assert "v1.20.0 (before 1.30 tokens do not name their node)" in messages(findings, "api server")[0]


def test_an_api_server_without_a_version_is_ok(cluster: Cluster, tmp_path: Path) -> None:
    cluster.mutate("", lambda document: {**document, "gitVersion": "v0.0.0-master+0000000"})
    findings = in_server_pod(cluster, tmp_path).findings()
    assert all(finding.level is Level.OK for finding in findings)
    assert "has no version (v0.0.0-master+0000000)" in messages(findings, "api server")[0]


def test_the_clock_is_not_compared_with_a_date_that_is_invalid(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("email.utils.formatdate", lambda *_, **__: "some time today")
    assert messages(in_server_pod(cluster, tmp_path).findings(), "clock") == []


def test_from_outside_replicas_are_examined_once(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    cluster.pod("default/bob-2", service_account="bob")
    assert len(messages(doctor_env.findings(), "options")) == 2
    doctor_env.metadata = {"ownerReferences": [{"uid": "replica-set"}]}
    assert len(messages(doctor_env.findings(), "options")) == 1


def test_from_outside_the_container_with_options_is_the_app(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.spec = {"containers": [{"name": "first"}, *BOB_SPEC["containers"]]}
    assert messages(doctor_env.findings(), "options") == [
        "default/bob-1: audience bob; all authenticated callers are allowed"
    ]


def test_from_outside_permissions_are_checked_even_without_pods(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    cluster.mutate("pods", lambda answer: {**answer, "items": []})
    doctor_env.audience = "bob"
    findings = doctor_env.findings()
    (finding,) = [one for one in findings if one.level is not Level.OK]
    assert finding.message.startswith("no pod runs as default/bob: the app's options")
    assert len(messages(findings, "permissions")) == 2
    assert messages(findings, "audience") == ["bob: not an audience of the API server"]


def test_from_outside_a_missing_permission_to_list_pods_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    cluster.fail(403, path="*/pods")
    (finding,) = [one for one in doctor_env.findings() if one.level is not Level.OK]
    assert "forbids us to get /api/v1/namespaces/default/pods" in finding.message


def test_from_outside_a_caller_without_pods_needs_no_permissions(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    cluster.mutate("pods", lambda answer: {**answer, "items": []})
    doctor_env.acting_as, doctor_env.side = "default/alice", "caller"
    assert messages(doctor_env.findings(), "permissions") == []


def test_from_outside_the_allow_list_is_not_checked_without_permission(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.spec = {"containers": [{**BOB_SPEC["containers"][0], "env": _allowing("default/nobody")}]}
    cluster.fail(403, path="*/serviceaccounts/*")
    findings = doctor_env.findings()
    assert {finding.subject for finding in findings if finding.level is not Level.OK} == {"allow"}
    assert [finding.level for finding in findings if finding.subject == "allow"] == [Level.SKIP]


def _allowing(pattern: str) -> list[dict[str, Any]]:
    return [{"name": "PODPROOF_AUDIENCE", "value": "bob"}, {"name": "PODPROOF_ALLOW", "value": pattern}]


def test_from_outside_an_allowed_service_account_that_exists_is_ok(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.spec = {"containers": [{**BOB_SPEC["containers"][0], "env": _allowing("default/alice")}]}
    assert all(finding.level is Level.OK for finding in doctor_env.findings())


def test_from_outside_a_failed_check_of_impersonation_is_skipped(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    cluster.fail(403, path="*selfsubjectaccessreviews")
    levels = [(one.subject, one.level) for one in doctor_env.findings() if one.level is not Level.OK]
    assert levels == [("permissions", Level.WARN)]


def test_missing_permissions_of_a_kubeconfigs_user_are_reported(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = outside_cluster(cluster, tmp_path)
    doctor_env.acting_as, doctor_env.variables = None, {**doctor_env.variables, "PODPROOF_AUDIENCE": "bob"}
    cluster.mutate("selfsubjectaccessreviews", lambda review: {**review, "status": {"allowed": False}})
    reported = messages(doctor_env.findings(), "permissions")
    assert reported[0] == "the kubeconfig's user may not create tokenreviews.authentication.k8s.io, nor get pods"
    assert reported[1].startswith("checked for the kubeconfig's user")
