"""A middleware does no I/O and starts no thread before the first request of a process, so that servers may fork."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from podproof.testing import Cluster
from tests.support.cluster_env import ClusterEnv
from tests.support.server_process import ROOT, TIMEOUT_SECONDS, ServerProcess, free_port, run_server

STARTS = int(os.environ.get("SERVER_STARTS", "2"))
"""How many times each server is started: twice in the normal run, SERVER_STARTS=20 for the proof."""

WORKERS = 2
ALICE = "127.0.0.2"
APP = "tests.process.first_request_app:wsgi_app"
UWSGI = ["-c", "import pyuwsgi, sys; pyuwsgi.run(sys.argv[1:])", "--http-socket", "127.0.0.1:{port}"]
UWSGI += ["--master", "--processes", f"{WORKERS}", "--die-on-term", "--need-app", "--module", APP]
GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:{port}", "--workers", f"{WORKERS}"]
PATCHED = ["--config", "python:tests.process.gevent_config"]
SERVERS = {
    "uwsgi": UWSGI,
    "uwsgi --enable-threads": [*UWSGI, "--enable-threads"],
    "gunicorn --preload": [*GUNICORN, "--preload", APP],
    "gunicorn --preload gevent": [*GUNICORN, "--preload", "--worker-class", "gevent", *PATCHED, APP],
}
MISSING = ("create tokenreviews.authentication.k8s.io", "get pods")


@pytest.fixture(scope="module")
def cluster_env() -> Iterator[ClusterEnv]:
    with Cluster() as cluster:
        env = ClusterEnv(cluster)
        env.add_pod("alice", ALICE)
        yield env


def send_until(condition: Callable[[], bool], server: ServerProcess, token: str) -> Iterator[Any]:
    """Yield responses to requests as Alice, several at a time, until a condition is met."""
    end = time.monotonic() + TIMEOUT_SECONDS
    with ThreadPoolExecutor(2 * WORKERS) as threads:
        while not condition():
            assert time.monotonic() < end, server.log.read_text()[-2000:]
            yield from threads.map(lambda _: server.get(ALICE, token), range(2 * WORKERS))


@pytest.mark.trap(52)
@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_every_worker_of_a_forking_server_responds_after_every_start(
    command: list[str], cluster_env: ClusterEnv, tmp_path: Path
) -> None:
    for start in range(STARTS):
        folder = tmp_path / f"{start}"
        folder.mkdir()
        with run_server(command, folder, **cluster_env.environ) as server:
            wait_for_workers(server, cluster_env.tokens["alice"])


def wait_for_workers(server: ServerProcess, token: str) -> None:
    """Send requests as Alice, each of which is allowed, until every worker has responded."""
    pids: set[int] = set()
    for response in send_until(lambda: len(pids) == WORKERS, server, token):
        assert response.status == 200, server.log.read_text()[-2000:]
        assert response.json["pod"] == "default/alice-pod"
        pids.add(response.json["pid"])


@pytest.mark.trap(13, 52)
@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_missing_permissions_are_logged_once_by_each_process_that_serves(
    command: list[str], cluster_env: ClusterEnv, tmp_path: Path
) -> None:
    kubeconfig = str(cluster_env.cluster.kubeconfig_for("default/newcomer"))
    with run_server(command, tmp_path, **cluster_env.environ | {"KUBECONFIG": kubeconfig}) as server:

        def pids_of(pattern: str) -> list[str]:
            return re.findall(rf"^pid=(\d+) .*{pattern}", server.log.read_text(), re.MULTILINE)

        def everything_is_logged() -> bool:
            served = {*pids_of("503 unavailable")}
            return len(served) == WORKERS and all(served <= {*pids_of(f"may not {one}")} for one in MISSING)

        for response in send_until(everything_is_logged, server, cluster_env.tokens["alice"]):
            assert response.status == 503
        once_each = dict.fromkeys(pids_of("503 unavailable"), 1)
        for permission in MISSING:
            assert Counter(pids_of(f"may not {permission}")) == once_each


def write_kubeconfig(path: Path, port: int, user: object) -> None:
    kubeconfig = {
        "current-context": "probe",
        "contexts": [{"name": "probe", "context": {"cluster": "probe", "user": "probe"}}],
        "clusters": [{"name": "probe", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "probe", "user": user}],
    }
    path.write_text(json.dumps(kubeconfig))


def probe(first_use: str, folder: Path, user: object) -> Any:
    """Return what a middleware in a process of its own has started when it was constructed, and when it was used."""
    port, kubeconfig = free_port(), folder / "kubeconfig"
    write_kubeconfig(kubeconfig, port, user)
    command = [sys.executable, "-m", "tests.process.construction_probe", first_use]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PODPROOF_"))}
    environ |= {"KUBECONFIG": str(kubeconfig), "PROBE_PORT": f"{port}"}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.trap(52)
@pytest.mark.parametrize("first_use", ["wsgi-request", "asgi-request", "asgi-lifespan"])
def test_a_constructor_starts_no_thread_and_opens_no_connection_before_the_first_use(
    first_use: str, tmp_path: Path
) -> None:
    result = probe(first_use, tmp_path, {"token": "secret"})
    assert result["constructed"] == {"threads": [], "connections": 0}
    assert result["used"]["connections"] > 0


@pytest.mark.trap(52)
def test_a_constructor_does_not_run_the_credential_plugin_of_a_kubeconfig(tmp_path: Path) -> None:
    started = tmp_path / "started"
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", f"touch {started}; exec sleep 5"],
        "interactiveMode": "Never",
    }
    assert probe("none", tmp_path, {"exec": plugin})["constructed"] == {"threads": [], "connections": 0}
    assert not started.exists()
