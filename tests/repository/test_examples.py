"""The examples, started as their docstrings say, on the emulated cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from podproof.testing import Cluster
from podproof.testing import EmulatedPod as Pod
from tests.support.server_process import ROOT, TIMEOUT_SECONDS, ServerProcess, run_server

COMMANDS = {
    "flask_bob": [
        *["-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket"],
        *["-c", "python:podproof.drain.gunicorn", "examples.flask_bob:app"],
    ],
    "starlette_bob": ["-m", "uvicorn", "--port", "{port}", "--no-proxy-headers", "examples.starlette_bob:app"],
}
ALICE = {"service_account": "default/alice", "pod": "default/alice-pod"}


@pytest.fixture(scope="module")
def alice(module_cluster: Cluster) -> Pod:
    return module_cluster.pod("default/alice-pod", service_account="alice", addresses=["127.0.0.1"])


@pytest.fixture(scope="module")
def module_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        cluster.service_account("default/bob")
        cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        cluster.grant("default/bob", verbs=["get"], resources=["pods"])
        yield cluster


@pytest.fixture(scope="module", params=COMMANDS)
def bob(
    request: pytest.FixtureRequest, module_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Run each example app, with its options in the environment."""
    environ = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(module_cluster.kubeconfig_for("default/bob"))}
    with run_server(COMMANDS[request.param], tmp_path_factory.mktemp("bob"), **environ) as server:
        yield server


def run_alice(bob: ServerProcess, token_file: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PODPROOF_")}
    given = {"BOB_URL": f"http://127.0.0.1:{bob.port}", "PODPROOF_TOKEN_FILE": str(token_file)}
    command = [sys.executable, "examples/alice.py"]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=inherited | given | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def test_whoami_responds_with_the_caller(bob: ServerProcess, alice: Pod) -> None:
    response = bob.get("127.0.0.1", alice.token("bob"))
    assert (response.status, response.json) == (200, ALICE)


def test_a_token_of_another_pod_or_audience_is_denied(bob: ServerProcess, alice: Pod) -> None:
    assert bob.get("127.0.0.2", alice.token("bob")).status == 403
    assert bob.get("127.0.0.1", alice.token("carol")).status == 401
    assert bob.get("127.0.0.1", None).status == 401


def test_echo_returns_what_was_posted(bob: ServerProcess, alice: Pod) -> None:
    sent = {"Content-Type": "text/x-test"}
    response = bob.request("POST", "127.0.0.1", "/echo", sent, token=alice.token("bob"), body=b"once upon a time")
    assert (response.status, response.body) == (200, b"once upon a time")
    assert response.headers["content-type"].startswith("text/x-test")


def test_healthz_is_exempt(bob: ServerProcess) -> None:
    response = bob.get("127.0.0.2", None, "/healthz")
    assert (response.status, response.body) == (200, b"ok")


@pytest.mark.parametrize("name", COMMANDS)
def test_after_sigterm_readyz_fails_and_healthz_does_not(name: str, module_cluster: Cluster, tmp_path: Path) -> None:
    environ = {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(module_cluster.kubeconfig_for("default/bob"))}
    with run_server(COMMANDS[name], tmp_path, **environ, PODPROOF_DRAIN_GAP="60", PODPROOF_DRAIN_MAX="60") as bob:
        assert bob.get("127.0.0.2", None, "/readyz").status == 200
        os.kill(bob.pid, signal.SIGTERM)
        end = time.monotonic() + TIMEOUT_SECONDS
        while bob.get("127.0.0.2", None, "/readyz").status != 503:
            assert time.monotonic() < end, bob.log.read_text()
        assert bob.get("127.0.0.2", None, "/healthz").status == 200


@pytest.mark.parametrize("bob", ["starlette_bob"], indirect=True)
def test_the_first_message_of_a_websocket_is_the_caller(bob: ServerProcess, alice: Pod) -> None:
    with connect(f"ws://127.0.0.1:{bob.port}/ws", additional_headers=alice.headers("bob")) as websocket:
        assert json.loads(websocket.recv()) == ALICE


def test_alice_prints_the_response(bob: ServerProcess, alice: Pod, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(alice.token("bob"))
    done = run_alice(bob, token_file)
    assert (done.returncode, done.stderr) == (0, "")
    status, _, body = done.stdout.partition(" ")
    assert (status, json.loads(body)) == ("200", ALICE)


def test_alice_finds_bob_by_the_environment_variables_of_his_service(
    bob: ServerProcess, alice: Pod, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(alice.token("bob"))
    service = {"BOB_SERVICE_HOST": "127.0.0.1", "BOB_SERVICE_PORT": str(bob.port)}
    assert run_alice(bob, token_file, BOB_URL="", **service).stdout.startswith("200 ")


def test_alice_fails_without_a_token_and_when_bob_denies_her(
    bob: ServerProcess, module_cluster: Cluster, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    assert "serviceAccountToken" in run_alice(bob, token_file).stderr
    elsewhere = module_cluster.pod(f"default/at-{bob.port}", addresses=["127.0.0.9"])
    token_file.write_text(elsewhere.token("bob"))
    done = run_alice(bob, token_file)
    assert done.returncode == 1
    assert done.stdout.startswith("403 ")
    assert elsewhere.token("bob") not in done.stderr


def test_alice_fails_when_bob_is_down_unless_she_calls_in_a_loop(alice: Pod, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(alice.token("bob"))
    unreachable = "http://127.0.0.1:9"
    environ = os.environ | {"BOB_URL": unreachable, "PODPROOF_TOKEN_FILE": str(token_file)}
    command = [sys.executable, "examples/alice.py"]
    once = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert once.returncode == 1
    assert "Connection refused" in once.stderr

    environ |= {"ALICE_PAUSE": "0.01"}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        running.kill()
    assert ["Connection refused" in line for line in lines] == [True] * 3


@pytest.mark.parametrize("name", ["alice", "flask_bob", "starlette_bob"])
def test_an_example_is_under_thirty_lines(name: str) -> None:
    assert len((ROOT / f"examples/{name}.py").read_text().splitlines()) < 30
