"""Every module on systems without what only Linux or POSIX has, each emulated in a process, and what runs there.

Importing everything takes long: a process does it once for a system, and forks for each script.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import podproof

MODULES = [module.name for module in pkgutil.walk_packages(podproof.__path__, "podproof.")]
MODULES.remove("podproof.__main__")  # the command itself

# What Python does not have there: docs.python.org, the availability notes of each.
MISSING = {
    "darwin": {"os": ["eventfd", "pidfd_open"], "signal": ["pidfd_send_signal"], "socket": ["TCP_INFO"]},
    "win32": {
        "mmap": ["MAP_ANON", "MAP_ANONYMOUS", "MAP_PRIVATE", "MAP_SHARED", "PROT_READ", "PROT_WRITE"],
        "os": ["eventfd", "fork", "getpgid", "getuid", "killpg", "pidfd_open", "register_at_fork", "setsid", "wait"],
        "signal": [
            *["ITIMER_REAL", "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2"],
            *["alarm", "getitimer", "pthread_sigmask", "setitimer", "siginterrupt", "sigwait"],
        ],
        "socket": ["AF_UNIX", "TCP_INFO"],
    },
}
ABSENT_MODULES = {"darwin": [], "win32": ["fcntl", "grp", "gunicorn", "pwd", "resource", "termios", "uvloop"]}

# Other people's modules are imported before the system is changed: they look at sys.platform themselves.
EMULATION = """
import asyncio, importlib, logging, mmap, multiprocessing, os, prometheus_client, signal, socket, sys, uvicorn

fork, wait, loop = os.fork, os.waitpid, asyncio.new_event_loop()
platform, missing, absent, modules = {platform!r}, {missing!r}, {absent!r}, {modules!r}
for module in modules:
    importlib.import_module(module)
for module in ["podproof", *modules]:
    del sys.modules[module]
for metric in [*prometheus_client.REGISTRY._collector_to_names]:
    prometheus_client.REGISTRY.unregister(metric)
for module, names in missing.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
sys.modules |= dict.fromkeys(absent)
sys.platform = platform

class Socket(socket.socket):
    def bind(self, address):
        if address[0] not in ("127.0.0.1", "::1"):
            raise OSError(49, "Can't assign requested address")
        super().bind(address)

socket.socket = Socket
for module in modules:
    importlib.import_module(module)
scripts = sys.argv[1:]
for number, script in enumerate(scripts):
    if pid := fork():
        assert wait(pid, 0) == (pid, 0)
    else:
        sys.stdout = open(str(number), "w")
        exec(script)
        break
"""

DRAIN = """
from podproof.drain import is_draining
from podproof.drain.uvicorn import DrainMiddleware

async def app(scope, receive, send):
    await send({"type": "lifespan.startup.complete"})

async def receive():
    return {"type": "lifespan.startup"}

async def send(message):
    print(message["type"], is_draining())

logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
before = signal.getsignal(signal.SIGTERM)
loop.run_until_complete(DrainMiddleware(app)({"type": "lifespan"}, receive, send))
print(signal.getsignal(signal.SIGTERM) == before)
"""

HOOKS = """
from types import SimpleNamespace
from podproof.drain.gunicorn import when_ready

logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
arbiter = SimpleNamespace(
    log=logging.getLogger("gunicorn.error"), handle_term=None, signal=lambda *_: None,
    reexec_pid=0, master_pid=0, worker_age=1, num_workers=1, LISTENERS=[socket.create_server(("127.0.0.1", 0))],
)
when_ready(arbiter)
if arbiter.handle_term:
    arbiter.handle_term()
"""

DEMO = """
from podproof.cli import main
print(main(["demo"]))
"""

ASGI = """
import podproof
from podproof.asgi import PodAuthMiddleware
from podproof.testing import Cluster

async def app(scope, receive, send):
    print(podproof.current_caller().service_account)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})

async def receive():
    return {"type": "http.request"}

async def send(message):
    if "status" in message:
        print(message["status"])

with Cluster() as cluster:
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=("10.0.0.7",))
    middleware = PodAuthMiddleware(app, audience="bob")
    for headers in alice.headers("bob"), {}:
        fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": "/", "client": ("10.0.0.7", 5000), "headers": fields}
        loop.run_until_complete(middleware(scope, receive, send))
"""


RunOn = Callable[[str, str], list[str]]
SCRIPTS = (DEMO, ASGI, DRAIN, HOOKS)


@pytest.fixture(scope="module")
def run_on(tmp_path_factory: pytest.TempPathFactory) -> RunOn:
    """Return what returns the lines that a script prints on a system after every module has been imported there."""

    @cache
    def run_all_on(platform: str) -> Path:
        folder = tmp_path_factory.mktemp(platform)
        emulation = EMULATION.format(
            platform=platform, missing=MISSING[platform], absent=ABSENT_MODULES[platform], modules=MODULES
        )
        subprocess.run([sys.executable, "-c", emulation, *SCRIPTS], cwd=folder, check=True, timeout=60)
        return folder

    return lambda platform, script: (run_all_on(platform) / f"{SCRIPTS.index(script)}").read_text().splitlines()


def test_the_emulations_know_every_module() -> None:
    assert {"podproof.drain.gunicorn", "podproof.asgi", "podproof.wsgi", "podproof.cli.demo"} < {*MODULES}


@pytest.mark.parametrize("platform", MISSING)
def test_the_demo_runs_where_loopback_has_one_address_of_each_family(run_on: RunOn, platform: str) -> None:
    header, *lines, _, verdict, status = run_on(platform, DEMO)
    assert header.split() == ["CALLER", "FROM", "CREDENTIAL", "RESULT"]
    assert [line.split()[1] for line in lines[:3]] == ["::1", "::1", "127.0.0.1"]
    assert (len(lines), verdict, status) == (8, "2 TokenReviews; all results as expected", "0")


@pytest.mark.parametrize("platform", MISSING)
def test_the_asgi_middleware_authenticates(run_on: RunOn, platform: str) -> None:
    assert run_on(platform, ASGI) == ["default/alice", "200", "401"]


def test_on_macos_uvicorns_middleware_takes_sigterm_over(run_on: RunOn) -> None:
    assert run_on("darwin", DRAIN) == ["lifespan.startup.complete False", "False"]


def test_on_windows_uvicorns_middleware_serves_without_a_drain_and_says_so(run_on: RunOn) -> None:
    log, *served = run_on("win32", DRAIN)
    assert log == "No drain: Windows sends no SIGTERM"
    assert served == ["lifespan.startup.complete False", "True"]


def test_on_macos_gunicorn_drains_without_a_look_at_its_accept_queue_and_says_so(run_on: RunOn) -> None:
    begun, accept_queue, *_ = run_on("darwin", HOOKS)
    assert begun == "Draining until no request has arrived for 15 s, at most 25 s"
    assert accept_queue.startswith("The accept queue cannot be read on darwin")


def test_on_windows_the_hooks_leave_sigterm_alone_and_say_so(run_on: RunOn) -> None:
    assert run_on("win32", HOOKS) == ["No drain: win32 has no timer signals (setitimer)"]
