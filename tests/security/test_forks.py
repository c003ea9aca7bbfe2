"""Workers and threads: no answer reaches another's question, nothing crosses a fork, nothing is left at the end."""

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
from tests.security import forking_app as forked
from tests.support.server_process import SECONDS, Server, serving

MANY = {"gunicorn gthread": 400, "gunicorn asgi": 400}
FEW = 60
"""Callers, on the other servers."""

AT_ONCE = 16
TIMEOUT = 1
"""Seconds."""

GRACE = 30
"""Seconds after which gunicorn kills a worker that has not ended."""

GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:{port}", "--workers", "2"]
WSGI, ASGI = "tests.security.forking_app:wsgi_app()", "tests.security.forking_app:asgi_app()"
FORKED = {
    "gunicorn sync": [*GUNICORN, "--preload", WSGI],
    "gunicorn gthread": [*GUNICORN, "--preload", "--threads", "8", WSGI],
    "gunicorn gevent": [*GUNICORN, "--preload", "--worker-class", "gevent", WSGI],
    "gunicorn asgi": [*GUNICORN, "--preload", "--worker-class", "asgi", ASGI],
    "gunicorn uvicorn-worker": [*GUNICORN, "--preload", "--worker-class", "uvicorn_worker.UvicornWorker", ASGI],
}
UVICORN = ["-m", "uvicorn", "--no-proxy-headers", "--port", "{port}", "--factory"]
SERVERS = FORKED | {"uvicorn": [*UVICORN, "--workers", "2", ASGI.removesuffix("()")]}


KNOWN = "default/known"


@dataclass
class World:
    """A cluster of many callers, and whose questions its API server was asked on which connection."""

    cluster: Cluster
    tokens: Mapping[str, str]
    asked: dict[threading.Thread, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def environ(self) -> dict[str, str]:
        kubeconfig = str(self.cluster.kubeconfig)
        return {"PODPROOF_AUDIENCE": "bob", "PODPROOF_TIMEOUT": f"{SECONDS}", "KUBECONFIG": kubeconfig}

    def callers(self, many: int) -> list[str]:
        return [name for name in self.tokens if name != KNOWN][:many]

    def watch(self) -> None:
        """Note from now on who is asked about on which connection; answers come after a while, and in any order."""
        some = random.Random(1)
        self.asked.clear()

        def note(review: Any) -> Any:
            [pod] = review["status"]["user"]["extra"][POD_NAME]
            self.asked[threading.current_thread()].add(f"default/{pod}")
            time.sleep(some.uniform(0, 0.01))
            return review

        self.cluster.mutate("tokenreviews", note)


def address(name: str) -> str:
    number = int(name.rpartition("-")[2])
    return f"127.1.{number // 200}.{number % 200 + 1}"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Cluster(tls=False) as cluster:  # what is mixed up in plain HTTP is believed
        homes = {name: address(name) for name in (f"default/caller-{number}" for number in range(max(MANY.values())))}
        homes[KNOWN] = forked.ADDRESS
        pods = {name: cluster.pod(name, service_account="caller", addresses=[home]) for name, home in homes.items()}
        yield World(cluster, {name: pod.token("bob") for name, pod in pods.items()})


@pytest.fixture(autouse=True)
def the_api_server_is_well_again(world: World) -> Iterator[None]:
    yield
    world.cluster.heal()


def ask(server: Server, world: World, names: list[str]) -> dict[str, Any]:
    """Have so many ask at the same time, and return what each is told."""

    def get(name: str) -> Any:
        answer = server.get(address(name), world.tokens[name], "/")
        return answer.json if answer.status == 200 else {"caller": answer.status}

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(names, threads.map(get, names), strict=True))


def workers_of(server: Server, count: int) -> set[int]:
    """Return the pids of so many workers when each has answered: one that is up first would answer all."""
    seen: set[int] = set()
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while len(seen) < count:
            assert time.monotonic() < end, f"only {seen} answer"
            answers = threads.map(lambda _: server.get("127.0.0.1", None, "/healthz"), range(AT_ONCE))
            seen |= {answer.json["pid"] for answer in answers}
    return seen


def ask_until_both_answer(server: Server, world: World, least: int) -> dict[str, Any]:
    """Have at least so many callers ask, and others, until two workers have answered; return what each is told."""
    told: dict[str, Any] = {}
    everybody = world.callers(max(MANY.values()))
    while len(told) < least or (len(told) < len(everybody) and len({answer["pid"] for answer in told.values()}) < 2):
        told |= ask(server, world, everybody[len(told) : len(told) + FEW])
        assert strangers(told) == []
    return told


def strangers(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return who was told that they are somebody else."""
    return [(name, answer) for name, answer in told.items() if answer["caller"] != name]


@pytest.mark.trap(32)
@pytest.mark.parametrize("name", SERVERS)
def test_no_answer_reaches_anothers_question(world: World, name: str, tmp_path: Path) -> None:
    before_the_fork = {forked.KNOWN: world.tokens[KNOWN]} if name in FORKED else {}
    world.watch()
    with serving(SERVERS[name], tmp_path, **world.environ, **before_the_fork) as server:
        workers_of(server, 2)
        told = ask_until_both_answer(server, world, MANY.get(name, FEW))
        workers = {name: answer["pid"] for name, answer in told.items()}
        assert len({*workers.values()}) == 2
        # Each connection to the API server is one worker's, and none is the one from before the fork.
        assert ({KNOWN} in world.asked.values()) == (name in FORKED)
        shared = [asked for asked in world.asked.values() if len({workers.get(one) for one in asked}) > 1]
        assert shared == []
        callers = [*told]
        random.Random(2).shuffle(callers)
        assert strangers(ask(server, world, callers[:FEW])) == []


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.trap(47)
@pytest.mark.parametrize("name", ["gunicorn gthread", "gunicorn gevent", "uvicorn"])
def test_a_server_ends_when_it_is_told_to_though_the_api_server_hangs(world: World, name: str, tmp_path: Path) -> None:
    environ = world.environ | {"PODPROOF_TIMEOUT": f"{TIMEOUT}"}
    with ThreadPoolExecutor() as threads, serving(SERVERS[name], tmp_path, **environ) as server:
        pids = workers_of(server, 2)  # all: gunicorn's gevent worker hears no signal before it serves
        world.cluster.fail("hang")
        asked = world.cluster.count("tokenreviews")
        threads.submit(ask, server, world, world.callers(4))
        wait_until(lambda: world.cluster.count("tokenreviews") > asked)
        is_told = time.monotonic()
    assert time.monotonic() - is_told < GRACE
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
