"""Floods of tokens that are no good, and what those who are known notice of them.

A known caller asks over HTTP, from a process of its own. The flood comes into the middleware past the HTTP server,
which could not read as many requests a second. The API server is a process of its own too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count, cycle
from pathlib import Path
from statistics import median
from typing import Any, Self, TextIO, cast

import uvicorn

from benchmarks.fakes import AUDIENCE, Tokens
from benchmarks.load import Load, LoadRequest
from benchmarks.repeats import Repeats, interleaved
from benchmarks.report import Amount, Row
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.asgi import PodAuthMiddleware
from podproof.options import Options
from podproof.testing import Cluster

ADDRESS = "127.0.0.1"
CALLERS = 1000
ROUNDS = 7
REQUESTS = 100
"""Of the known caller, in each round."""

PAUSE = 0.005
"""Seconds between two of them."""

JUNK, FORGERIES = 10_000, 1_000
"""A second."""

REVIEW = 0.002
"""Seconds that the API server thinks about a token."""

GOAL = 2.0
FLAT = 1.05

Make = Callable[[], str]


class Floods:
    """Makes tokens that are all distinct, at next to no cost: their signatures are counted up."""

    def __init__(self) -> None:
        make = Tokens().make
        good, carols, old = make(), make(audience="carol"), make(issued_at=time.time() - 7200)
        bodies = [token.rpartition(".")[0] for token in (good, carols, old)]
        self._numbers = count()
        self._good = bodies[0]
        self._junk = cycle(
            [f"{bodies[1]}.{{:0341}}A", f"{bodies[2]}.{{:0341}}A", f"{bodies[0]}.{{:0341}}B", "{:01200}"]
        )

    def junk(self) -> str:
        """Return a token for somebody else, one that has expired, one spelled wrongly, or none at all, in turn."""
        return next(self._junk).format(next(self._numbers))

    def forgery(self) -> str:
        """Return a token that nobody but the API server can tell from a good one."""
        return f"{self._good}.{next(self._numbers):0341}A"


class Helper:
    """One of this module's other processes: it says one thing when it is ready, and answers each line."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.floods", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self.ready = self._read()

    def ask(self) -> Any:
        """Return what it answers to a line."""
        hold = cast("TextIO", self._process.stdin)
        hold.write("\n")
        hold.flush()
        return self._read()

    def _read(self) -> Any:
        return json.loads(cast("TextIO", self._process.stdout).readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its stdin, at which it ends


class Bob:
    """An app behind the middleware, served in this process."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._app = PodAuthMiddleware(_app, authenticator=authenticator)
        self._server = uvicorn.Server(
            uvicorn.Config(self._app, ADDRESS, port=0, http="h11", lifespan="off", proxy_headers=False, log_level=30)
        )

    async def start(self) -> int:
        """Serve whenever the event loop runs, and return the port."""
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """End, and close every connection."""
        self._server.should_exit = True
        await self._serving

    async def ask(self, token: str) -> None:
        """Ask past the HTTP server."""
        headers = [(b"authorization", b"Bearer " + token.encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "client": (ADDRESS, 1234), "headers": headers}
        await self._app(scope, _receive, _ignore)


class Flood:
    """Tokens that come into Bob one after the other, these in turn, and so many a second."""

    def __init__(self, rate: int, *makes: Make) -> None:
        self._rate = rate
        self._makes = makes
        self._reached: list[float] = []

    async def measure(self, bob: Bob, caller: Helper) -> float:
        """Let them come, and return what the known caller typically waits for an answer meanwhile, in seconds."""
        asking = asyncio.create_task(asyncio.to_thread(caller.ask))
        begin, number = time.perf_counter(), 0
        async with asyncio.TaskGroup() as tasks:
            for number, make in enumerate(cycle(self._makes)):
                await asyncio.sleep(max(0.0, begin + number / self._rate - time.perf_counter()))
                if asking.done():
                    break
                tasks.create_task(bob.ask(make()))
            self._reached.append(number / (time.perf_counter() - begin))
        waited: float = await asking
        return waited

    @property
    def reached(self) -> float:
        """How many came a second: fewer than were to come where the process has no time for more."""
        return median(self._reached)


def rows() -> Iterator[Row]:
    """Let them come."""
    with ExitStack() as stack:
        api = stack.enter_context(Helper("api"))
        client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": api.ready["kubeconfig"]}))
        stack.enter_context(closing(client))
        options = Options(audience=(AUDIENCE,), cache_ttl=3600)
        authenticator = Authenticator(options, TokenReviewVerifier(client, options.audience), PodLookup(client))
        stack.enter_context(closing(authenticator))
        tokens: Sequence[str] = api.ready["tokens"]
        for token in tokens:
            authenticator.authenticate(token, ADDRESS)
        stack.enter_context(_log_to_nowhere())
        bob, made = Bob(authenticator), Floods()
        runner = stack.enter_context(asyncio.Runner())
        port = runner.run(bob.start())
        stack.callback(lambda: runner.run(bob.stop()))
        caller = stack.enter_context(Helper("caller", str(port), tokens[0]))
        floods = {
            "nobody": Flood(1),
            "callers": Flood(JUNK, cycle(tokens).__next__),
            "junk": Flood(JUNK, made.junk),
            "forgeries": Flood(FORGERIES, made.forgery),
            "both": Flood(JUNK + FORGERIES, *[made.junk] * (JUNK // FORGERIES), made.forgery),
        }
        competitors = {name: partial(_run, runner, flood, bob, caller) for name, flood in floods.items()}
        interleaved(competitors, 2)
        before = _resident()
        repeats = interleaved(competitors, ROUNDS)
        after = _resident()
        left = sum(authenticator.get_cached(token, ADDRESS) is not None for token in tokens)
        most: int = api.ask()
    for name, what in (("junk", "junk tokens"), ("forgeries", "forgeries"), ("both", "of both")):
        yield _beside_quiet(f"{floods[name].reached:,.0f} {what}", name, repeats)
    yield Row(
        "TokenReviews at a time meanwhile, as the API server sees them",
        Amount(most),
        goal=f"≤ {options.max_reviews}",
        met=most <= options.max_reviews,
    )
    ratio = after / before
    yield Row(
        f"memory after {ROUNDS} floods of each kind",
        Amount(after, "B"),
        "after the first two",
        Amount(before, "B"),
        ratio,
        f"≤ {FLAT:.2f}x",
        ratio <= FLAT,
    )
    yield Row(f"callers still remembered then, of {CALLERS:,}", Amount(left), goal="all", met=left == CALLERS)


def _beside_quiet(what: str, name: str, repeats: Repeats) -> Row:
    ratio = repeats.ratio(name, "nobody")
    return Row(
        f"a known caller's answer, beside {what} a second",
        Amount(repeats.median(name), "s"),
        "beside nobody",
        Amount(repeats.median("nobody"), "s"),
        ratio,
        f"≤ {GOAL:.0f}x",
        ratio <= GOAL,
        f"beside {JUNK:,} other known callers a second it is {repeats.ratio('callers', 'nobody'):.2f}x",
    )


def _run(runner: asyncio.Runner, flood: Flood, bob: Bob, caller: Helper) -> float:
    return runner.run(flood.measure(bob, caller))


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _app(_: Any, __: Any, send: Any) -> None:
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


async def _receive() -> Any:
    return {"type": "http.request"}


async def _ignore(_: Any) -> None:
    """Take an answer."""


@contextmanager
def _log_to_nowhere() -> Iterator[None]:
    """Have each refusal logged as it is in earnest, and thrown away."""
    log = logging.getLogger("podproof")
    with Path(os.devnull).open("w") as nowhere:
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        log.addHandler(handler)
        log.propagate = False
        try:
            yield
        finally:
            log.propagate = True
            log.removeHandler(handler)


def be_the_api_server() -> None:
    """Serve tokens' reviews; answer how many there were at a time, at the most."""
    now = most = 0
    counting = threading.Lock()

    def think(answer: object) -> object:
        nonlocal now, most
        with counting:
            now += 1
            most = max(most, now)
        time.sleep(REVIEW)
        with counting:
            now -= 1
        return answer

    with Cluster() as cluster:
        cluster.mutate("tokenreviews", think)
        pod = cluster.pod("default/alice", service_account="alice", addresses=[ADDRESS])
        tokens = [pod.token(audience=AUDIENCE) for _ in range(CALLERS)]
        print(json.dumps({"kubeconfig": str(cluster.kubeconfig), "tokens": tokens}), flush=True)
        for _ in sys.stdin:
            print(most, flush=True)


def be_the_caller(port: int, token: str) -> None:
    """Ask again and again; answer the median of the seconds that an answer took."""
    print("null", flush=True)
    with Load(port, LoadRequest(headers={"Authorization": f"Bearer {token}"}), 1) as load:
        for _ in sys.stdin:
            waited = []
            for _ in range(REQUESTS):
                begin = time.perf_counter()
                load.send(1)
                waited.append(time.perf_counter() - begin)
                time.sleep(PAUSE)
            print(median(waited), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "api":
        be_the_api_server()
    else:
        be_the_caller(int(sys.argv[2]), sys.argv[3])
