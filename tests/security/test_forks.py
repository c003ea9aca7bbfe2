"""Workers and threads: no response reaches another caller, no connection crosses a fork, no process stays behind."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from podproof._authentication.token_review import POD_NAME
from podproof.testing import Cluster
from tests.security.forking_app import PRELOADED_ADDRESS, PRELOADED_TOKEN
from tests.support.modes import AUTO, Mode, modes_in_turn
from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess, run_server

CALLERS = {"gunicorn gthread": 400, "gunicorn asgi": 400}
"""How many callers call a server."""

FEW_CALLERS = 60
"""How many call the other servers."""

CONCURRENCY = 16
API_TIMEOUT = 1
"""Seconds."""

GRACE_PERIOD = 30
"""Seconds after which gunicorn kills a worker that has not ended."""

GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:{port}", "--workers", "2"]
WSGI, ASGI = "tests.security.forking_app:wsgi_app()", "tests.security.forking_app:asgi_app()"
PRELOADING = {
    "gunicorn sync": [*GUNICORN, "--preload", WSGI],
    "gunicorn gthread": [*GUNICORN, "--preload", "--threads", "8", WSGI],
    "gunicorn gevent": [*GUNICORN, "--preload", "--worker-class", "gevent", WSGI],
    "gunicorn asgi": [*GUNICORN, "--preload", "--worker-class", "asgi", ASGI],
    "gunicorn uvicorn-worker": [*GUNICORN, "--preload", "--worker-class", "uvicorn_worker.UvicornWorker", ASGI],
}
UVICORN = ["-m", "uvicorn", "--no-proxy-headers", "--port", "{port}", "--factory"]
SERVERS = PRELOADING | {"uvicorn": [*UVICORN, "--workers", "2", ASGI.removesuffix("()")]}

WATCHING = (Mode("keys", "watch"), Mode("review", "watch"), AUTO)
"""The modes with threads of their own, which have to end with the server."""

PRELOADED_POD = "default/preloaded"


@dataclass
class ReviewedCallers:
    """A cluster with many callers, and the pods whose tokens were reviewed on each connection to its API server."""

    cluster: Cluster
    tokens: Mapping[str, str]
    pods_by_connection: dict[threading.Thread, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def environ(self) -> dict[str, str]:
        kubeconfig = str(self.cluster.kubeconfig)
        return {"PODPROOF_AUDIENCE": "bob", "PODPROOF_TIMEOUT": f"{TIMEOUT_SECONDS}", "KUBECONFIG": kubeconfig}

    def pods(self, count: int) -> list[str]:
        return [name for name in self.tokens if name != PRELOADED_POD][:count]

    def record_reviews(self) -> None:
        """Record reviews from now on; the API server responds after a short while, in any order."""
        delays = random.Random(1)
        self.pods_by_connection.clear()

        def record(review: Any) -> Any:
            [pod] = review["status"]["user"]["extra"][POD_NAME]
            self.pods_by_connection[threading.current_thread()].add(f"default/{pod}")
            time.sleep(delays.uniform(0, 0.01))
            return review

        self.cluster.mutate("tokenreviews", record)


def address(name: str) -> str:
    number = int(name.rpartition("-")[2])
    return f"127.1.{number // 200}.{number % 200 + 1}"


@pytest.fixture(scope="module")
def callers() -> Iterator[ReviewedCallers]:
    with Cluster(tls=False) as cluster:  # TLS would detect a connection that two processes share
        names = [f"default/caller-{number}" for number in range(max(CALLERS.values()))]
        addresses = {name: address(name) for name in names} | {PRELOADED_POD: PRELOADED_ADDRESS}
        pods = {name: cluster.pod(name, service_account="caller", addresses=[ip]) for name, ip in addresses.items()}
        yield ReviewedCallers(cluster, {name: pod.token("bob") for name, pod in pods.items()})


@pytest.fixture(autouse=True)
def heal_api_server(callers: ReviewedCallers) -> Iterator[None]:
    yield
    callers.cluster.heal()


def send_concurrently(server: ServerProcess, callers: ReviewedCallers, names: list[str]) -> dict[str, Any]:
    """Send one request from each pod, many at a time, and return what the app reports to each."""

    def get(name: str) -> Any:
        response = server.get(address(name), callers.tokens[name], "/")
        return response.json if response.status == 200 else {"caller": response.status}

    with ThreadPoolExecutor(CONCURRENCY) as threads:
        return dict(zip(names, threads.map(get, names), strict=True))


def wait_for_workers(server: ServerProcess, count: int) -> set[int]:
    """Return the process ids of this many workers, once each has responded."""
    seen: set[int] = set()
    end = time.monotonic() + TIMEOUT_SECONDS
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        while len(seen) < count:
            assert time.monotonic() < end, f"only {seen} respond"
            responses = threads.map(lambda _: server.get("127.0.0.1", None, "/healthz"), range(CONCURRENCY))
            seen |= {response.json["pid"] for response in responses}
    return seen


def send_until_two_workers_respond(server: ServerProcess, callers: ReviewedCallers, at_least: int) -> dict[str, Any]:
    """Send requests from at least this many pods, and from further ones until two workers have responded."""
    reports: dict[str, Any] = {}
    names = callers.pods(max(CALLERS.values()))
    while len(reports) < at_least or (len(reports) < len(names) and len({one["pid"] for one in reports.values()}) < 2):
        reports |= send_concurrently(server, callers, names[len(reports) : len(reports) + FEW_CALLERS])
        assert mixed_up(reports) == []
    return reports


def mixed_up(reports: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the pods to which another caller was reported, with the report."""
    return [(name, report) for name, report in reports.items() if report["caller"] != name]


@pytest.mark.trap(32)
@pytest.mark.parametrize(("name", "mode"), modes_in_turn(SERVERS))
def test_no_answer_reaches_another_caller_s_request(
    callers: ReviewedCallers, name: str, mode: Mode, tmp_path: Path
) -> None:
    preloaded = {PRELOADED_TOKEN: callers.tokens[PRELOADED_POD]} if name in PRELOADING else {}
    callers.record_reviews()
    callers.cluster.requests.clear()
    with run_server(SERVERS[name], tmp_path, **callers.environ | mode.environ, **preloaded) as server:
        wait_for_workers(server, 2)
        reports = send_until_two_workers_respond(server, callers, CALLERS.get(name, FEW_CALLERS))
        workers = {name: report["pid"] for name, report in reports.items()}
        assert len({*workers.values()}) == 2
        # Each connection to the API server belongs to one worker, and none was opened before the fork.
        connections = callers.pods_by_connection.values()
        reviewed = mode.verify == "review"
        assert ({PRELOADED_POD} in connections) == (reviewed and name in PRELOADING)
        assert any(connections) == reviewed
        assert [pods for pods in connections if len({workers.get(pod) for pod in pods}) > 1] == []
        names = [*reports]
        random.Random(2).shuffle(names)
        assert mixed_up(send_concurrently(server, callers, names[:FEW_CALLERS])) == []
        # A watch, too, belongs to one process: each worker has its own, and so has the process before the fork.
        watches = [request for request in callers.cluster.requests if request.verb == "watch"]
        assert len(watches) >= (2 + (name in PRELOADING) if mode.pods == "watch" else 0)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.trap(47)
@pytest.mark.parametrize(("name", "mode"), modes_in_turn(["gunicorn gthread", "gunicorn gevent", "uvicorn"], WATCHING))
def test_a_server_ends_after_sigterm_while_the_api_server_hangs(
    callers: ReviewedCallers, name: str, mode: Mode, tmp_path: Path
) -> None:
    environ = callers.environ | mode.environ | {"PODPROOF_TIMEOUT": f"{API_TIMEOUT}"}
    with ThreadPoolExecutor() as threads, run_server(SERVERS[name], tmp_path, **environ) as server:
        pids = wait_for_workers(server, 2)  # gunicorn's gevent worker ignores signals until it serves
        callers.cluster.fail("hang")
        before = len(callers.cluster.requests)
        threads.submit(send_concurrently, server, callers, callers.pods(4))
        wait_until(lambda: len(callers.cluster.requests) > before)
        terminated = time.monotonic()
    assert time.monotonic() - terminated < GRACE_PERIOD
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
