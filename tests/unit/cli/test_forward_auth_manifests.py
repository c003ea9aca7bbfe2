"""`podproof manifests --forward-auth`, and the doctor in such a pod."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from podproof.cli import main
from podproof.cli.checks.forward_auth import check_forward_auth
from podproof.cli.finding import Level
from podproof.cli.proxy_configurations import PROXIES, configure_proxy
from podproof.drain.settings import DrainSettings
from podproof.forward_auth import ForwardAuth
from podproof.options import Options
from podproof.testing import Cluster

COMMAND = ["manifests", "--server", "default/shop", "--audience", "shop", "--caller", "default/alice"]
Render = Callable[..., dict[str, Any]]


@pytest.fixture
def render(capsys: pytest.CaptureFixture[str]) -> Render:
    def run(*more: str) -> dict[str, Any]:
        assert main([*COMMAND, *more]) == 0
        loaded = [*yaml.safe_load_all(capsys.readouterr().out)]
        return {f"{one['kind']} {one['metadata']['name']}": one for one in loaded}

    return run


def environment(documents: dict[str, Any]) -> dict[str, str]:
    containers = documents["Deployment shop"]["spec"]["template"]["spec"]["containers"]
    [podproof] = [one for one in containers if one["name"] == "podproof"]
    return {one["name"]: one["value"] for one in podproof["env"]}


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_with_the_documented_configuration_stands_before_the_app(render: Render, proxy: str) -> None:
    documents = render("--forward-auth", proxy)
    assert [*documents][2:8] == [
        "ServiceAccount shop",
        "ConfigMap shop-proxy",
        "Service shop",
        "Deployment shop",
        "PodDisruptionBudget shop",
        "NetworkPolicy shop",
    ]
    made = configure_proxy(proxy)
    assert documents["ConfigMap shop-proxy"]["data"] == {made.file: made.text}
    pod = documents["Deployment shop"]["spec"]["template"]["spec"]
    app, server, _ = pod["containers"]
    waits = [int(one["lifecycle"]["preStop"]["exec"]["command"][1]) for one in (app, server)]
    assert max(waits) < DrainSettings().idle_timeout  # podproof stays until it is not asked any more
    assert server["command"] == [*made.command, f"/etc/proxy/{made.file}"]
    assert {one["mountPath"] for one in server["volumeMounts"]} == {"/etc/proxy", "/tmp"}
    assert "ports" not in app
    ports = {one["port"] for one in documents["NetworkPolicy shop"]["spec"]["ingress"][0]["ports"]}
    assert ports == {"http", "podproof"}
    assert documents["Service shop"]["spec"]["ports"][0]["targetPort"] == server["ports"][0]["name"] == "http"


@pytest.mark.parametrize("more", [[], ["--policy", "rbac"], ["--verify", "keys"]], ids=str)
def test_forward_auth_reads_its_environment(
    render: Render, more: list[str], podproof_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = render("--forward-auth", "caddy", *more)
    for name, value in environment(documents).items():
        monkeypatch.setenv(name, value)
    ForwardAuth().close()
    if "rbac" in more:
        assert documents["ClusterRole shop-default-alice"]["rules"][0]["nonResourceURLs"] == ["/whoami", "/whoami/"]


def test_an_exchange_is_no_app_behind_a_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--forward-auth", "caddy", "--exchange"]) == 1
    assert "--exchange cannot be combined with --forward-auth" in capsys.readouterr().err


def test_the_doctor_checks_which_proxy_asks_and_from_where() -> None:
    trusting = Options.read({"audience": "shop", "trusted_proxies": ["127.0.0.1"]}, {})
    alone = Options.read({"audience": "shop"}, {})

    def check(proxy: str, options: Options | None) -> tuple[Level, str]:
        [finding] = check_forward_auth({"PODPROOF_FORWARD_AUTH_PROXY": proxy}, options)
        return finding.level, finding.message

    assert check("nginx", trusting) == (Level.OK, "nginx asks")
    assert check("nginx", None)[0] is Level.OK
    assert check("nginx", alone) == (Level.FAIL, "no trusted_proxies are set: nginx is not believed")
    assert check("apache", trusting)[1].startswith("invalid PODPROOF_FORWARD_AUTH_PROXY 'apache'")
    assert [*check_forward_auth({}, alone)] == []
