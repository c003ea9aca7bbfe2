"""1,000 concurrent requests with one unknown token: their calls to the API server, and a cached caller's latency."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from benchmarks import AUDIENCE
from benchmarks.report import Amount, Measurement
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.cached_identity import AuthenticationResult
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.options import Options
from podproof.testing import Cluster
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware

CONCURRENT = 1000
CACHED_REQUESTS = 1000
PAUSE = 0.001
"""Seconds between two of the cached caller's requests: a processor that is kept busy may run at twice its speed."""

ADDRESS = "127.0.0.1"
PATIENCE = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class StampedeResult:
    """Calls to the API server, threads that waited, and a cached caller's seconds per request."""

    reviews: int
    reads: int
    threads: int
    before: float
    meanwhile: float


def rows() -> Iterator[Measurement]:
    """Run both kinds."""
    for kind, run in (("WSGI threads", wsgi), ("ASGI tasks", asgi)):
        result = run()
        yield Measurement(
            f"{CONCURRENT:,} concurrent requests with one unknown token, {kind}: TokenReviews, and as many pod reads",
            Amount(result.reviews),
            goal="exactly 1 of each",
            met=(result.reviews, result.reads) == (1, 1),
        )
        if run is asgi:
            yield Measurement(
                f"threads that wait for them, {kind}", Amount(result.threads), goal="≤ 1", met=result.threads <= 1
            )
        ratio = result.meanwhile / result.before
        yield Measurement(
            f"a cached caller's latency meanwhile, {kind}",
            Amount(result.meanwhile, "s"),
            "the same before",
            Amount(result.before, "s"),
            ratio,
            "≤ 1.5x",
            ratio <= 1.5,
        )


class _HeldClient(APIServerClient):
    """Creates a TokenReview only when `may_review` is set."""

    may_review = threading.Event()

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        self.may_review.wait(PATIENCE)
        return super().review_token(token, audiences, deadline)


class _CountingAuthenticator(Authenticator):
    """Counts the requests that wait for a review."""

    started = 0
    _counting = threading.Lock()

    def start(self, *review: Any) -> Future[AuthenticationResult]:
        future = super().start(*review)
        with self._counting:
            self.started += 1
        return future


@dataclass(frozen=True, slots=True)
class _Stampede:
    cluster: Cluster
    client: _HeldClient
    authenticator: _CountingAuthenticator
    cached: str
    unknown: str

    def result(self, threads: int, before: float, meanwhile: float) -> StampedeResult:
        # Less those of the cached caller.
        reviews, reads = (self.cluster.count(resource) - 1 for resource in ("tokenreviews", "pods"))
        if self.authenticator.started != CONCURRENT:
            raise RuntimeError(f"only {self.authenticator.started} requests have come to the authenticator")
        return StampedeResult(reviews, reads, threads, before, meanwhile)


@contextmanager
def _prepared() -> Iterator[_Stampede]:
    with Cluster() as cluster:
        client = _HeldClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))
        options = Options(audience=(AUDIENCE,), timeout=2 * PATIENCE)
        authenticator = _CountingAuthenticator(
            options, TokenReviewVerifier(client, options.audience), PodLookup(client)
        )
        pod = cluster.pod("default/alice", service_account="alice", addresses=[ADDRESS])
        cached, unknown = pod.token(audience=AUDIENCE), pod.token(audience=AUDIENCE)
        with closing(client), closing(authenticator):
            client.may_review.set()
            authenticator.authenticate(cached, ADDRESS)
            client.may_review.clear()
            authenticator.started = 0
            yield _Stampede(cluster, client, authenticator, cached, unknown)


def wsgi() -> StampedeResult:
    """Send each request in a thread."""
    with _prepared() as stampede:
        app = WSGIMiddleware(_wsgi_app, authenticator=stampede.authenticator)
        call = partial(_call_wsgi, app, stampede.cached)
        before, threads_before = _median_latency(call), threading.active_count()
        threads = [threading.Thread(target=_call_wsgi, args=(app, stampede.unknown)) for _ in range(CONCURRENT)]
        for thread in threads:
            thread.start()
        _wait_until(lambda: stampede.authenticator.started == CONCURRENT)
        waiting, meanwhile = threading.active_count() - threads_before, _median_latency(call)
        stampede.client.may_review.set()
        for thread in threads:
            thread.join()
        return stampede.result(waiting, before, meanwhile)


def asgi() -> StampedeResult:
    """Send each request in a task."""
    return asyncio.run(_asgi())


async def _asgi() -> StampedeResult:
    with _prepared() as stampede:
        app = ASGIMiddleware(_asgi_app, authenticator=stampede.authenticator)
        before = await _median_latency_async(app, stampede.cached)
        threads_before = threading.active_count()
        tasks = [asyncio.create_task(_call_asgi(app, stampede.unknown)) for _ in range(CONCURRENT)]
        await asyncio.sleep(0)  # each has a turn now, and waits at its end
        waiting, meanwhile = (
            threading.active_count() - threads_before,
            await _median_latency_async(app, stampede.cached),
        )
        stampede.client.may_review.set()
        await asyncio.gather(*tasks)
        return stampede.result(waiting, before, meanwhile)


def _wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError("not all requests have come")
        time.sleep(0.01)


def _median_latency(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(CACHED_REQUESTS):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
        time.sleep(PAUSE)
    return median(taken)


async def _median_latency_async(app: ASGIMiddleware, token: str) -> float:
    taken = []
    for _ in range(CACHED_REQUESTS):
        begin = time.perf_counter()
        await asyncio.create_task(_call_asgi(app, token))  # through the loop, past all that wait there
        taken.append(time.perf_counter() - begin)
        await asyncio.sleep(PAUSE)
    return median(taken)


def _call_wsgi(app: WSGIMiddleware, token: str) -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "REMOTE_ADDR": ADDRESS,
        "HTTP_AUTHORIZATION": f"Bearer {token}",
    }
    with closing(app(environ, _start_response)) as body:  # type: ignore[type-var]  # the middleware's has a close()
        list(body)


def _wsgi_app(_: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def _start_response(status: str, *_: Any) -> Any:
    _expect(allowed=status == "200 OK")


async def _call_asgi(app: ASGIMiddleware, token: str) -> None:
    headers = [(b"authorization", b"Bearer " + token.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "client": (ADDRESS, 1234), "headers": headers}
    await app(scope, _receive, _send)


async def _asgi_app(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def _receive() -> Any:
    return {"type": "http.request"}


async def _send(message: Any) -> None:
    _expect(allowed=message.get("status", 200) == 200)


def _expect(*, allowed: bool) -> None:
    if not allowed:
        raise RuntimeError("a caller was denied")
