"""Floods of junk and forged tokens, and a cached caller's latency meanwhile.

Junk is denied by its claims, a forgery by the API server alone. The cached caller sends HTTP requests from its own
process. The flood calls the middleware itself: an HTTP server could not read as many requests per second. The API
server has its own process too.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count, cycle
from pathlib import Path
from statistics import median
from typing import Any

import uvicorn

from benchmarks import AUDIENCE
from benchmarks.helper_process import HelperProcess
from benchmarks.repeats import Repeats, interleaved
from benchmarks.report import Amount, Measurement
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof.asgi import PodAuthMiddleware
from podproof.options import Options
from tests.support.fake_api import TokenFactory, authenticator_for

ADDRESS = "127.0.0.1"
CALLERS = 1000
ROUNDS = 7
REQUESTS = 100
"""Of the cached caller, in each round."""

PAUSE = 0.005
"""Seconds between two of these requests."""

JUNK, FORGERIES = 10_000, 1_000
"""Per second."""

REVIEW = 0.002
"""Seconds that the API server takes for a TokenReview."""

GOAL = 2.0
FLAT = 1.05

MakeToken = Callable[[], str]


class FloodTokens:
    """Makes distinct tokens at next to no cost: their signatures are numbers."""

    def __init__(self) -> None:
        make = TokenFactory()
        good, wrong_audience, expired = make(), make(audience="carol"), make(issued_at=time.time() - 7200)
        bodies = [token.rpartition(".")[0] for token in (good, wrong_audience, expired)]
        self._numbers = count()
        self._good = bodies[0]
        self._junk = cycle(
            [f"{bodies[1]}.{{:0341}}A", f"{bodies[2]}.{{:0341}}A", f"{bodies[0]}.{{:0341}}B", "{:01200}"]
        )

    def junk(self) -> str:
        """Return a token for another audience, an expired one, a misspelled one, and a number, in turn."""
        return next(self._junk).format(next(self._numbers))

    def forgery(self) -> str:
        """Return a token that only the API server can tell from a good one."""
        return f"{self._good}.{next(self._numbers):0341}A"


class ServedApp:
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
        """Stop serving, and close every connection."""
        self._server.should_exit = True
        await self._serving

    async def request(self, token: str) -> None:
        """Send a request with this token, without the HTTP server."""
        headers = [(b"authorization", b"Bearer " + token.encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "client": (ADDRESS, 1234), "headers": headers}
        await self._app(scope, _receive, _ignore)


class Flood:
    """Requests with tokens of these kinds in turn, `rate` per second."""

    def __init__(self, rate: int, *kinds: MakeToken) -> None:
        self._rate = rate
        self._kinds = kinds
        self._rates: list[float] = []

    async def measure(self, app: ServedApp, caller: HelperProcess) -> float:
        """Run the flood, and return the median of the cached caller's latency meanwhile, in seconds."""
        calling = asyncio.create_task(asyncio.to_thread(caller.ask, [REQUESTS, PAUSE]))
        begin, number = time.perf_counter(), 0
        async with asyncio.TaskGroup() as tasks:
            for number, make_token in enumerate(cycle(self._kinds)):
                await asyncio.sleep(max(0.0, begin + number / self._rate - time.perf_counter()))
                if calling.done():
                    break
                tasks.create_task(app.request(make_token()))
            self._rates.append(number / (time.perf_counter() - begin))
        latency: float = median(await calling)
        return latency

    @property
    def achieved_rate(self) -> float:
        """The median of requests per second: less than `rate` where the process has no time for more."""
        return median(self._rates)


def rows() -> Iterator[Measurement]:
    """Run the floods."""
    with ExitStack() as stack:
        api = stack.enter_context(HelperProcess("flooded_api", str(CALLERS), ADDRESS, str(REVIEW)))
        client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": api.ready["kubeconfig"]}))
        stack.enter_context(closing(client))
        options = Options(audience=(AUDIENCE,), cache_ttl=3600)
        authenticator = authenticator_for(client, options)
        stack.enter_context(closing(authenticator))
        tokens: Sequence[str] = api.ready["tokens"]
        for token in tokens:
            authenticator.authenticate(token, ADDRESS)
        stack.enter_context(_discarded_log())
        app, tokens_of = ServedApp(authenticator), FloodTokens()
        runner = stack.enter_context(asyncio.Runner())
        port = runner.run(app.start())
        stack.callback(lambda: runner.run(app.stop()))
        caller = stack.enter_context(HelperProcess("cached_caller", str(port), tokens[0]))
        floods = {
            "none": Flood(1),
            "callers": Flood(JUNK, cycle(tokens).__next__),
            "junk": Flood(JUNK, tokens_of.junk),
            "forgeries": Flood(FORGERIES, tokens_of.forgery),
            "both": Flood(JUNK + FORGERIES, *[tokens_of.junk] * (JUNK // FORGERIES), tokens_of.forgery),
        }
        competitors = {name: partial(_run, runner, flood, app, caller) for name, flood in floods.items()}
        interleaved(competitors, 2)
        before = _resident()
        repeats = interleaved(competitors, ROUNDS)
        after = _resident()
        left = sum(authenticator.get_cached(token, ADDRESS) is not None for token in tokens)
        most: int = api.ask()
    for name, what in (("junk", "junk tokens"), ("forgeries", "forgeries"), ("both", "of both")):
        yield _beside_none(f"{floods[name].achieved_rate:,.0f} {what}", name, repeats)
    yield Measurement(
        "concurrent TokenReviews meanwhile, as the API server counts them",
        Amount(most),
        goal=f"≤ {options.max_reviews}",
        met=most <= options.max_reviews,
    )
    ratio = after / before
    yield Measurement(
        f"memory after {ROUNDS} floods of each kind",
        Amount(after, "B"),
        "after the first two",
        Amount(before, "B"),
        ratio,
        f"≤ {FLAT:.2f}x",
        ratio <= FLAT,
    )
    yield Measurement(f"callers still cached then, of {CALLERS:,}", Amount(left), goal="all", met=left == CALLERS)


def _beside_none(what: str, name: str, repeats: Repeats) -> Measurement:
    ratio = repeats.ratio(name, "none")
    return Measurement(
        f"a cached caller's latency, beside {what} per second",
        Amount(repeats.median(name), "s"),
        "without a flood",
        Amount(repeats.median("none"), "s"),
        ratio,
        f"≤ {GOAL:.0f}x",
        ratio <= GOAL,
        f"beside {JUNK:,} requests of cached callers per second it is {repeats.ratio('callers', 'none'):.2f}x",
    )


def _run(runner: asyncio.Runner, flood: Flood, app: ServedApp, caller: HelperProcess) -> float:
    return runner.run(flood.measure(app, caller))


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
    """Discard a response."""


@contextmanager
def _discarded_log() -> Iterator[None]:
    """Format each log record of a denial, and discard it."""
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
