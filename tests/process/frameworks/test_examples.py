"""Each example app, started as its docstring says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from podproof.testing import Cluster
from tests.support.server_process import ROOT, run_server

ADDRESS = {
    "gunicorn": ["--no-control-socket", "--bind", "127.0.0.1:{port}"],
    "hypercorn": ["--bind", "127.0.0.1:{port}"],
}
EXAMPLES = sorted(ROOT.glob("examples/*_bob.py"))

ELSEWHERE = (
    *("flask_bob", "starlette_bob", "mcp_bob", "fastmcp_bob", "grpc_bob"),
    *("fastapi_dependency_bob", "starlette_backend_bob", "flask_blueprint_bob", "django_middleware_bob"),
)
"""Run in tests/repository/test_examples.py, in test_mcp_agents.py, and in test_matrix.py; two of them below."""


def commands(example: Path) -> list[str]:
    return re.findall(r"`PODPROOF_AUDIENCE=bob (.+?)`", ast.get_docstring(ast.parse(example.read_text())) or "")


def test_each_example_has_a_command_that_starts_it() -> None:
    assert all(commands(example) for example in EXAMPLES)


@pytest.mark.parametrize(
    "command", [command for example in EXAMPLES if example.stem not in ELSEWHERE for command in commands(example)]
)
def test_an_example_runs_as_its_docstring_says(command: str, cluster: Cluster, tmp_path: Path) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["127.0.0.2"]).token("bob")
    server, *rest = command.split()
    given = ["-m", server, *ADDRESS.get(server, ["--port", "{port}"]), *rest]
    with run_server(given, tmp_path, PODPROOF_AUDIENCE="bob", KUBECONFIG=str(cluster.kubeconfig)) as server_process:
        assert server_process.get("127.0.0.2", alice).json == {
            "service_account": "default/alice",
            "pod": "default/alice-pod",
        }
        assert server_process.get("127.0.0.3", alice).status == 403
        assert server_process.get("127.0.0.3", None, "/healthz").status == 200


def test_the_grpc_example_runs_as_its_docstring_says(cluster: Cluster, tmp_path: Path) -> None:
    [command] = commands(ROOT / "examples/grpc_bob.py")
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["127.0.0.1"]).token("bob")
    environ = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(cluster.kubeconfig), "PORT": "{port}"}
    with (
        run_server(command.split()[1:], tmp_path, **environ) as server_process,
        grpc.insecure_channel(f"127.0.0.1:{server_process.port}") as channel,
    ):
        whoami: Any = channel.unary_unary("/bob.Bob/WhoAmI")
        assert whoami(b"", metadata=[("authorization", f"Bearer {alice}")], timeout=10) == b"default/alice"
        with pytest.raises(grpc.RpcError) as denied:
            whoami(b"", timeout=10)
        assert denied.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_example_with_rest_framework_runs_as_its_docstring_says(cluster: Cluster, tmp_path: Path) -> None:
    [command] = commands(ROOT / "examples/django_middleware_bob.py")
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["127.0.0.2"]).token("bob")
    batch = cluster.pod("batch/job", service_account="job", addresses=["127.0.0.2"]).token("bob")
    server, app = command.split()
    environ = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(cluster.kubeconfig)}
    with run_server(["-m", server, *ADDRESS[server], app], tmp_path, **environ) as server_process:
        assert server_process.get("127.0.0.2", alice, "/whoami").json["pod"] == "default/alice-pod"
        assert server_process.get("127.0.0.2", alice, "/api").body == b"system:serviceaccount:default:alice"
        assert server_process.get("127.0.0.2", batch, "/api").status == 403
        assert server_process.get("127.0.0.3", alice, "/api").status == 403
        assert server_process.get("127.0.0.3", None, "/healthz").status == 200


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_under_forty_lines(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 40
