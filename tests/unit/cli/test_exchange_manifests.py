"""`podproof manifests --exchange`: complete, with least privilege, and read by the exchange itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from podproof._token.token_file import default_path
from podproof.cli import main
from podproof.exchange.grants_file import read_grants
from podproof.exchange.key_directory import read_keys
from podproof.exchange.options import ExchangeOptions
from podproof.options import Options

COMMAND = ["manifests", "--exchange", "--server", "default/bridge", "--audience", "bridge"]
CALLER = ["--caller", "default/alice"]


@pytest.fixture
def render(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*more: str) -> dict[str, Any]:
        assert main([*COMMAND, *more]) == 0
        loaded = [*yaml.safe_load_all(capsys.readouterr().out)]
        return {f"{one['kind']} {one['metadata']['name']}": one for one in loaded}

    return run


def test_all_that_an_exchange_needs_is_printed(render: Callable[..., dict[str, Any]]) -> None:
    documents = render(*CALLER)
    assert [*documents] == [
        "ClusterRole podproof-default-bridge",
        "ClusterRoleBinding podproof-default-bridge",
        "ServiceAccount bridge",
        "Secret bridge-keys",
        "ConfigMap bridge-grants",
        "Service bridge",
        "Deployment bridge",
        "PodDisruptionBudget bridge",
        "NetworkPolicy bridge",
        "ServiceAccount alice",
        "Deployment alice",
    ]
    rules = documents["ClusterRole podproof-default-bridge"]["rules"]
    assert [(rule["verbs"], rule["resources"]) for rule in rules] == [
        (["create"], ["tokenreviews"]),
        (["get", "list", "watch"], ["pods"]),
    ]
    deployment = documents["Deployment bridge"]["spec"]
    assert deployment["replicas"] == 2
    labels = deployment["template"]["metadata"]["labels"]
    for kind, name in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert documents[f"{kind} bridge"]["spec"][name]["matchLabels"] == labels


def test_the_exchange_reads_what_is_printed(render: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    documents = render(*CALLER, "--verify", "keys")
    for name, text in documents["Secret bridge-keys"]["stringData"].items():
        (tmp_path / name).write_text(text)
    files = read_keys(tmp_path)
    assert ([*files.keys], files.current) == (["1.pem"], "1.pairwise")
    (tmp_path / "grants.yaml").write_text(documents["ConfigMap bridge-grants"]["data"]["grants.yaml"])
    [grant] = read_grants(tmp_path / "grants.yaml")
    assert grant.allow == ("default/alice",)
    [container] = documents["Deployment bridge"]["spec"]["template"]["spec"]["containers"]
    environ = {one["name"]: one["value"] for one in container["env"]}
    assert ExchangeOptions.read({}, environ).issuer == "http://bridge.default.svc"
    options = Options.read({}, environ)
    assert (options.verify, options.pods, options.audience) == ("keys", "watch", ("bridge",))
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert environ["PODPROOF_EXCHANGE_KEYS"] in mounted
    assert str(Path(environ["PODPROOF_EXCHANGE_GRANTS_FILE"]).parent) in mounted


def test_a_callers_token_is_where_its_client_looks(
    render: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = render(*CALLER)["Deployment alice"]["spec"]["template"]["spec"]
    [mount] = spec["containers"][0]["volumeMounts"]
    assert Path(mount["mountPath"], "token") == default_path(None)
    assert main([*COMMAND, *CALLER]) == 0
    assert 'TokenClient("ledger", exchange="http://bridge.default.svc/token")' in capsys.readouterr().out
    assert main(["manifests", "--exchange", "--only", "caller", "--audience", "bridge", *CALLER]) == 0
    assert 'exchange="http://EXCHANGE/token")' in capsys.readouterr().out


def test_each_secret_is_a_new_one(render: Callable[..., dict[str, Any]]) -> None:
    first, second = (render(*CALLER)["Secret bridge-keys"]["stringData"] for _ in range(2))
    assert not {*first.values()} & {*second.values()}


def test_only_its_permissions_can_be_printed(render: Callable[..., dict[str, Any]]) -> None:
    assert [one.partition(" ")[0] for one in render("--only", "rbac")] == ["ClusterRole", "ClusterRoleBinding"]


@pytest.mark.parametrize("arguments", [[], [*CALLER, "--policy", "rbac"]])
def test_what_it_cannot_be_combined_with_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, *arguments]) == 1
    assert "--exchange needs --caller" in capsys.readouterr().err
