"""1,000 requests at once with one unknown token, and what a known caller notices of it."""

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

from benchmarks.fakes import AUDIENCE
from benchmarks.report import Amount, Row
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

AT_ONCE = 1000
KNOWN = 1000
PAUSE = 0.001
"""Seconds between two of the known caller's requests: a processor that is kept busy may run at twice its speed."""

ADDRESS = "127.0.0.1"
PATIENCE = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it: calls to the API server, threads that waited, and the seconds that a known caller took."""

    reviews: int
    reads: int
    threads: int
    before: float
    meanwhile: float


def rows() -> Iterator[Row]:
    """Let them come."""
    for kind, stampede in (("WSGI threads", wsgi), ("ASGI tasks", asgi)):
        seen = stampede()
        yield Row(
            f"{AT_ONCE:,} requests at once with one unknown token, {kind}: TokenReviews, and as many pod reads",
            Amount(seen.reviews),
            goal="exactly 1 of each",
            met=(seen.reviews, seen.reads) == (1, 1),
        )
        if stampede is asgi:
            yield Row(f"threads that wait for them, {kind}", Amount(seen.threads), goal="≤ 1", met=seen.threads <= 1)
        ratio = seen.meanwhile / seen.before
        yield Row(
            f"a known caller meanwhile, {kind}",
            Amount(seen.meanwhile, "s"),
            "the same before",
            Amount(seen.before, "s"),
            ratio,
            "≤ 1.5x",
            ratio <= 1.5,
        )


class _HeldClient(APIServerClient):
    """Asks for a review only when it may."""

    may_ask = threading.Event()

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        self.may_ask.wait(PATIENCE)
        return super().review_token(token, audiences, deadline)


class _CountingAuthenticator(Authenticator):
    """Counts those who have asked."""

    asked = 0
    _counting = threading.Lock()

    def start(self, *review: Any) -> Future[AuthenticationResult]:
        future = super().start(*review)
        with self._counting:
            self.asked += 1
        return future


@dataclass(frozen=True, slots=True)
class _Scene:
    cluster: Cluster
    client: _HeldClient
    authenticator: _CountingAuthenticator
    known: str
    unknown: str

    def seen(self, threads: int, before: float, meanwhile: float) -> Seen:
        # Less those of the known caller.
        reviews, reads = (self.cluster.count(resource) - 1 for resource in ("tokenreviews", "pods"))
        if self.authenticator.asked != AT_ONCE:
            raise RuntimeError(f"only {self.authenticator.asked} have asked")
        return Seen(reviews, reads, threads, before, meanwhile)


@contextmanager
def _scene() -> Iterator[_Scene]:
    with Cluster() as cluster:
        client = _HeldClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))
        options = Options(audience=(AUDIENCE,), timeout=2 * PATIENCE)
        authenticator = _CountingAuthenticator(
            options, TokenReviewVerifier(client, options.audience), PodLookup(client)
        )
        pod = cluster.pod("default/alice", service_account="alice", addresses=[ADDRESS])
        known, unknown = pod.token(audience=AUDIENCE), pod.token(audience=AUDIENCE)
        with closing(client), closing(authenticator):
            client.may_ask.set()
            authenticator.authenticate(known, ADDRESS)
            client.may_ask.clear()
            authenticator.asked = 0
            yield _Scene(cluster, client, authenticator, known, unknown)


def wsgi() -> Seen:
    """Let the requests come in a thread each."""
    with _scene() as scene:
        app = WSGIMiddleware(_wsgi_app, authenticator=scene.authenticator)
        call = partial(_call_wsgi, app, scene.known)
        before, threads_before = _typical(call), threading.active_count()
        threads = [threading.Thread(target=_call_wsgi, args=(app, scene.unknown)) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        _until(lambda: scene.authenticator.asked == AT_ONCE)
        waiting, meanwhile = threading.active_count() - threads_before, _typical(call)
        scene.client.may_ask.set()
        for thread in threads:
            thread.join()
        return scene.seen(waiting, before, meanwhile)


def asgi() -> Seen:
    """Let the requests come in a task each."""
    return asyncio.run(_asgi())


async def _asgi() -> Seen:
    with _scene() as scene:
        app = ASGIMiddleware(_asgi_app, authenticator=scene.authenticator)
        before = await _typical_async(app, scene.known)
        threads_before = threading.active_count()
        tasks = [asyncio.create_task(_call_asgi(app, scene.unknown)) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)  # each of them has a turn now, and waits at its end
        waiting, meanwhile = threading.active_count() - threads_before, await _typical_async(app, scene.known)
        scene.client.may_ask.set()
        await asyncio.gather(*tasks)
        return scene.seen(waiting, before, meanwhile)


def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError("the requests do not all come")
        time.sleep(0.01)


def _typical(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(KNOWN):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
        time.sleep(PAUSE)
    return median(taken)


async def _typical_async(app: ASGIMiddleware, token: str) -> float:
    taken = []
    for _ in range(KNOWN):
        begin = time.perf_counter()
        await asyncio.create_task(_call_asgi(app, token))  # through the loop, past all who wait there
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
    _check(admitted=status == "200 OK")


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
    _check(admitted=message.get("status", 200) == 200)


def _check(*, admitted: bool) -> None:
    if not admitted:
        raise RuntimeError("a caller was refused")
