"""The first sight of a token: by the cluster's signing keys and a watch, beside a TokenReview and a GET of the pod.

With the emulated API server, in processor time of both processes: that is what it takes where nothing else runs, and
other work on the machine does not count as a review's. With a real one, as time passes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from typing import Any, cast
from unittest.mock import patch

from benchmarks import AUDIENCE
from benchmarks.clusters import ClusterAccess, emulated_cluster, real_cluster
from benchmarks.repeats import Repeats, interleaved, timed
from benchmarks.report import Amount, Measurement
from benchmarks.servers import cpu_seconds
from podproof._apiserver.client import APIServerClient
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.jwk import SigningKey
from podproof._request.setup import build_authenticator
from podproof.asgi import PodAuthMiddleware
from podproof.options import Options

ROUNDS = 31
TOKENS = 20
"""In each round, for each mode. One more round, which is not counted, opens the connections and lists the pods."""

ADDRESS = "127.0.0.1"
GOAL = 20
ROTATED_GOAL = 150e-6
"""Seconds."""

Authenticate = Callable[[Sequence[str]], object]


def rows() -> Iterator[Measurement]:
    """Measure both modes on the emulated API server, and on the one that KUBECONFIG names."""
    with ExitStack() as stack:
        cluster = stack.enter_context(emulated_cluster(3 * (ROUNDS + 2) * TOKENS))
        review, keys = _authenticators(stack, cluster)
        runner = stack.enter_context(asyncio.Runner())
        requests = _Requests(PodAuthMiddleware(_app, authenticator=keys))
        modes: dict[str, Authenticate] = {
            "review": partial(_authenticate, review, ADDRESS),
            "keys": partial(_authenticate, keys, ADDRESS),
            "rotated": lambda tokens: runner.run(requests.send(tokens)),
        }
        tokens = iter(cluster.tokens)
        clock = partial(_used, cluster)
        works = {name: partial(_run, authenticate, tokens, clock) for name, authenticate in modes.items()}
        interleaved(works, 1)
        verify, checks = SigningKey.verify, 0

        def count(*arguments: Any) -> bool:
            nonlocal checks
            checks += 1
            return verify(*arguments)

        with patch.object(SigningKey, "verify", count):
            works["rotated"]()
        repeats = interleaved(works, ROUNDS)
    taken = repeats.median("rotated")
    yield _first_sight("emulated API server", repeats)
    yield Measurement(
        "a request with a new token of a known pod, by keys and a watch",
        Amount(taken, "s"),
        goal=f"≤ {ROTATED_GOAL * 1e6:.0f} µs",
        met=taken <= ROTATED_GOAL,
    )
    yield Measurement(
        f"signatures verified for {TOKENS} of those", Amount(checks), goal=f"≤ {TOKENS}", met=checks <= TOKENS
    )

    yield _on_a_real_cluster(os.environ.get("KUBECONFIG"))


def _on_a_real_cluster(kubeconfig: str | None) -> Measurement:
    """Measure the first sight of tokens of a pod that has no address: addresses are not compared."""
    if not kubeconfig:
        what = "the first sight of a token, by keys and a watch, real API server"
        return Measurement(what, None, why="not run: KUBECONFIG is not set")
    with ExitStack() as stack:
        cluster = stack.enter_context(real_cluster(kubeconfig, 2 * (ROUNDS + 1) * TOKENS))
        review, keys = _authenticators(stack, cluster, source_address="off")
        tokens = iter(cluster.tokens)
        modes = {"review": review, "keys": keys}
        works = {
            name: partial(_run, partial(_authenticate, one, None), tokens, time.perf_counter)
            for name, one in modes.items()
        }
        interleaved(works, 1)
        return _first_sight("real API server", interleaved(works, ROUNDS))


def _first_sight(where: str, repeats: Repeats) -> Measurement:
    ratio = 1 / repeats.ratio("keys", "review")
    return Measurement(
        f"the first sight of a token, by keys and a watch, {where}",
        Amount(repeats.median("keys"), "s"),
        "by a TokenReview and a GET of the pod",
        Amount(repeats.median("review"), "s"),
        repeats.ratio("keys", "review"),
        f"≤ {1 / GOAL:.2f}x",
        ratio >= GOAL,
        f"{ratio:.0f} times as fast",
    )


def _authenticators(stack: ExitStack, cluster: ClusterAccess, **options: Any) -> tuple[Authenticator, Authenticator]:
    """Return those by review and by keys, which ask the same API server."""
    client = stack.enter_context(closing(APIServerClient(load=cluster.load)))
    review, keys = (Options(audience=(AUDIENCE,), verify=verify, **options) for verify in ("review", "keys"))
    make = partial(build_authenticator, client=client)
    return stack.enter_context(closing(make(review))), stack.enter_context(closing(make(keys)))


def _authenticate(authenticator: Authenticator, peer: str | None, tokens: Sequence[str]) -> None:
    for token in tokens:
        authenticator.authenticate(token, peer)


class _Requests:
    """Requests to an ASGI app, one after the other."""

    def __init__(self, app: PodAuthMiddleware) -> None:
        self._app = app

    async def send(self, tokens: Sequence[str]) -> None:
        """Send a request with each of the tokens. Raises RuntimeError if one is denied."""
        for token in tokens:
            headers = [(b"authorization", b"Bearer " + token.encode())]
            scope = {"type": "http", "method": "GET", "path": "/", "client": (ADDRESS, 1234), "headers": headers}
            await self._app(scope, _receive, _send)


async def _app(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def _receive() -> Any:
    return {"type": "http.request"}


async def _send(message: Any) -> None:
    if message.get("status", 200) != 200:
        raise RuntimeError("a caller was denied")


def _used(cluster: ClusterAccess) -> float:
    """Return the processor time of this process and of the API server's, in seconds."""
    return time.process_time() + cpu_seconds(cast("int", cluster.process))


def _run(authenticate: Authenticate, tokens: Iterator[str], clock: Callable[[], float]) -> float:
    unknown = list(islice(tokens, TOKENS))
    return timed(partial(authenticate, unknown), len(unknown), clock)
