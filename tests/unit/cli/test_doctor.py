from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import Endpoint
from podproof.cli.checks import api, servers
from podproof.cli.doctor import doctor, report
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, Level, fail, ok, warn
from podproof.testing import Cluster
from tests.support.doctor_env import BOB, MOUNTED, alice_in_her_pod, bob_in_his_pod, from_outside

FINDINGS = [
    ok("options", "audience bob"),
    warn("server", "uvicorn believes X-Forwarded-For from 127.0.0.1", "uvicorn --no-proxy-headers"),
    fail("token", "there is none", "volumes:\n  - name: podproof"),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_findings_are_aligned_with_what_mends_them_below() -> None:
    assert report(FINDINGS).splitlines() == [
        "ok    options  audience bob",
        "warn  server   uvicorn believes X-Forwarded-For from 127.0.0.1",
        "               uvicorn --no-proxy-headers",
        "fail  token    there is none",
        "               volumes:",
        "                 - name: podproof",
        "",
        "1 fail, 1 warn, 1 ok",
    ]


def test_on_a_terminal_levels_are_coloured_and_lines_folded_but_not_what_is_to_be_copied() -> None:
    assert report(FINDINGS[:2], coloured=True, width=38).splitlines() == [
        "\x1b[32mok  \x1b[0m  options  audience bob",
        "\x1b[33mwarn\x1b[0m  server   uvicorn believes",
        "               X-Forwarded-For from",
        "               127.0.0.1",
        "               \x1b[1muvicorn --no-proxy-headers\x1b[0m",
        "",
        "0 fail, 1 warn, 1 ok",
    ]


@pytest.mark.parametrize(("out", "coloured"), [(Terminal(), True), (io.StringIO(), False)])
def test_what_is_no_terminal_gets_no_colour_and_whole_lines(
    out: io.StringIO, coloured: bool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    client = APIServerClient()
    environ = {"KUBECONFIG": os.environ["KUBECONFIG"], "TERM": "xterm"}
    assert doctor(Environment(client, client, environ), None, out) == Level.FAIL
    client.close()
    text = out.getvalue()
    assert ("\x1b[31mfail" in text) is coloured
    assert ("name the one that callers request tokens for" in text) is not coloured


def seen(findings: list[Finding], subject: str) -> list[str]:
    return [finding.seen for finding in findings if finding.subject == subject]


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
def test_a_server_that_leaves_the_address_alone_is_well(
    command: list[str], environ: dict[str, str], server: str
) -> None:
    assert servers.check([command], environ) == [ok("server", f"{server} leaves the peer address alone")]


def test_the_workers_of_a_server_are_not_told_of_again() -> None:
    assert len(servers.check([["gunicorn", "b:app"]] * 3, {})) == 1


def test_what_is_no_server_is_not_spoken_of() -> None:
    assert servers.check([[], ["sleep", "1"], ["sh", "-c", "x", "y", "z", "uvicorn"]], {}) == []


def test_who_may_call_is_told(cluster: Cluster, tmp_path: Path) -> None:
    scene = bob_in_his_pod(cluster, tmp_path)
    scene.environ |= {"PODPROOF_ALLOW": "default/*", "PODPROOF_RULES_FILE": "/rules.yaml"}
    scene.write("rules.yaml", "rules: [{path: /whoami, allow: [default/*]}]")
    assert seen(scene.findings(), "options") == [
        "audience bob; allow (default/*) and rules_file decides who may call",
        f"the rules in {tmp_path / 'rules.yaml'} can be read",
    ]


def test_in_a_callers_pod_the_servers_side_is_looked_at_on_demand(cluster: Cluster, tmp_path: Path) -> None:
    scene = alice_in_her_pod(cluster, tmp_path)
    assert {finding.subject for finding in scene.findings()} == {"token"}
    scene.side, scene.audience = "both", "bob"
    assert seen(scene.findings(), "credential") == [
        f"there is no {tmp_path / MOUNTED / 'token'}: this app cannot ask the API server"
    ]


def test_a_callers_token_in_the_plain_place_is_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    scene = alice_in_her_pod(cluster, tmp_path)
    place = tmp_path / "var/run/secrets/podproof/token"
    place.symlink_to("bob/token")
    assert len(seen(scene.findings(), "token")) == 2


def test_a_token_without_a_begin_or_a_pods_name_around_it_is_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    scene = alice_in_her_pod(cluster, tmp_path)
    del scene.environ["HOSTNAME"]
    claims = {"aud": "bob", "exp": scene.now() + 60, "kubernetes.io": {"pod": {"name": "alice-1"}}}
    scene.project("bob", cluster.sign(claims))
    (finding,) = scene.findings()
    assert (finding.level, finding.seen.partition(": ")[2][:9]) == (Level.OK, "for bob, ")


def test_a_pod_that_serves_and_calls_is_looked_at_from_both_sides(cluster: Cluster, tmp_path: Path) -> None:
    scene = bob_in_his_pod(cluster, tmp_path)
    scene.project("carol", cluster.pod("default/bob-1", service_account="bob").token("carol"))
    assert {"options", "permissions", "token"} <= {finding.subject for finding in scene.findings()}


def test_of_one_that_serves_and_calls_the_audience_given_is_the_servers(cluster: Cluster, tmp_path: Path) -> None:
    scene = bob_in_his_pod(cluster, tmp_path)
    scene.project("carol", cluster.pod("default/bob-1", service_account="bob").token("carol"))
    del scene.environ["PODPROOF_AUDIENCE"]
    scene.side, scene.audience = "both", "bob"
    findings = scene.findings()
    assert {finding.level for finding in findings} == {Level.OK}
    assert seen(findings, "options") == ["audience bob; whoever is known may call"]
    assert len(seen(findings, "token")) == 1


def test_without_kubernetes_around_it_says_so(tmp_path: Path, cluster: Cluster) -> None:
    scene = bob_in_his_pod(cluster, tmp_path)
    scene.environ = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": ""}
    home = os.environ["HOME"]
    os.environ["HOME"] = str(tmp_path)
    try:
        findings = scene.findings()
    finally:
        os.environ["HOME"] = home
    assert seen(findings, "api server")[0].startswith("no API server configuration found")


def test_a_process_that_ends_while_it_is_looked_at_is_passed_over(cluster: Cluster, tmp_path: Path) -> None:
    scene = bob_in_his_pod(cluster, tmp_path)
    (tmp_path / "proc/77/cmdline").mkdir(parents=True)
    assert seen(scene.findings(), "server") == ["uvicorn leaves the peer address alone"]


def test_a_pod_without_a_hosts_file_is_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    scene = bob_in_his_pod(cluster, tmp_path)
    (tmp_path / "etc/hosts").unlink()
    assert all(finding.level is Level.OK for finding in scene.findings())


def test_a_proxy_on_the_way_to_the_api_server_is_told_of(cluster: Cluster, tmp_path: Path) -> None:
    class Proxied(APIServerClient):
        def endpoint(self) -> Endpoint:
            return super().endpoint()._replace(proxy="proxy.example:3128")

    client = Proxied()
    findings = list(api.check(Environment(client, client, {})))
    client.close()
    (told,) = [one for one in findings if one.level is not Level.OK]
    assert "through the proxy proxy.example:3128" in told.seen
    assert told.mend == "kubectl set env deployment/NAME NO_PROXY=127.0.0.1"


def test_a_proxy_that_does_not_let_us_through_is_told_of_without_its_password(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = bob_in_his_pod(cluster, tmp_path)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    (told,) = [one for one in scene.findings() if one.level is not Level.OK]
    assert "ProxyError" in told.seen
    assert "NO_PROXY=" in told.mend
    assert "secret" not in report([told])


def test_an_old_api_server_is_well_and_what_it_lacks_is_told(tmp_path: Path) -> None:
    with Cluster(version="1.20") as cluster:
        findings = bob_in_his_pod(cluster, tmp_path).findings()
    assert "v1.20.0 (before 1.30 a token does not tell its node)" in seen(findings, "api server")[0]


def test_an_api_server_that_does_not_tell_its_version_is_well(cluster: Cluster, tmp_path: Path) -> None:
    cluster.mutate("", lambda document: {**document, "gitVersion": "v0.0.0-master+0000000"})
    findings = bob_in_his_pod(cluster, tmp_path).findings()
    assert all(finding.level is Level.OK for finding in findings)
    assert "does not tell its version (v0.0.0-master+0000000)" in seen(findings, "api server")[0]


def test_an_api_server_that_tells_no_time_is_asked_for_none(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("email.utils.formatdate", lambda *_, **__: "some time today")
    assert seen(bob_in_his_pod(cluster, tmp_path).findings(), "clock") == []


def test_from_outside_replicas_are_one_and_a_pod_of_its_own_is_another(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    cluster.pod("default/bob-2", service_account="bob")
    assert len(seen(scene.findings(), "options")) == 2
    scene.metadata = {"ownerReferences": [{"uid": "replica-set"}]}
    assert len(seen(scene.findings(), "options")) == 1


def test_from_outside_the_container_with_options_is_the_app(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    scene.spec = {"containers": [{"name": "first"}, *BOB["containers"]]}
    assert seen(scene.findings(), "options") == ["default/bob-1: audience bob; whoever is known may call"]


def test_from_outside_without_pods_permissions_are_looked_at_all_the_same(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    cluster.mutate("pods", lambda answer: {**answer, "items": []})
    scene.audience = "bob"
    findings = scene.findings()
    (told,) = [one for one in findings if one.level is not Level.OK]
    assert told.seen.startswith("none runs as default/bob: the app's options")
    assert len(seen(findings, "permissions")) == 2
    assert seen(findings, "audience") == ["bob: not the API server's own"]


def test_from_outside_who_may_not_see_pods_is_told_so(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    cluster.fail(403, path="*/pods")
    (told,) = [one for one in scene.findings() if one.level is not Level.OK]
    assert "forbids us to get /api/v1/namespaces/default/pods" in told.seen


def test_from_outside_a_caller_without_pods_needs_no_permissions(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    cluster.mutate("pods", lambda answer: {**answer, "items": []})
    scene.acting, scene.side = "default/alice", "caller"
    assert seen(scene.findings(), "permissions") == []


def test_from_outside_who_may_not_look_service_accounts_up_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    scene.spec = {"containers": [{**BOB["containers"][0], "env": _allowing("default/nobody")}]}
    cluster.fail(403, path="*/serviceaccounts/*")
    assert all(finding.level is Level.OK for finding in scene.findings())


def _allowing(pattern: str) -> list[dict[str, Any]]:
    return [{"name": "PODPROOF_AUDIENCE", "value": "bob"}, {"name": "PODPROOF_ALLOW", "value": pattern}]


def test_from_outside_an_allowed_service_account_that_is_there_is_well(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    scene.spec = {"containers": [{**BOB["containers"][0], "env": _allowing("default/alice")}]}
    assert all(finding.level is Level.OK for finding in scene.findings())


def test_from_outside_a_question_of_impersonation_that_is_not_answered_is_passed_over(
    cluster: Cluster, tmp_path: Path
) -> None:
    scene = from_outside(cluster, tmp_path)
    cluster.fail(403, path="*selfsubjectaccessreviews")
    levels = [(one.subject, one.level) for one in scene.findings() if one.level is not Level.OK]
    assert levels == [("permissions", Level.WARN)]


def test_who_is_no_service_account_is_told_what_is_missing_all_the_same(cluster: Cluster, tmp_path: Path) -> None:
    scene = from_outside(cluster, tmp_path)
    scene.acting, scene.environ = None, {**scene.environ, "PODPROOF_AUDIENCE": "bob"}
    cluster.mutate("selfsubjectaccessreviews", lambda review: {**review, "status": {"allowed": False}})
    said = seen(scene.findings(), "permissions")
    assert said[0] == "the kubeconfig's user may not create tokenreviews.authentication.k8s.io, nor get pods"
    assert said[1].startswith("asked for the kubeconfig's user")
