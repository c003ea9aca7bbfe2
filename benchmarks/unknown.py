"""An unknown caller: the two calls to the API server that authenticate it, beside urllib3 with the same two calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

from benchmarks import AUDIENCE
from benchmarks.clusters import BareAPI, ClusterAccess, emulated_cluster, real_cluster
from benchmarks.repeats import interleaved, timed
from benchmarks.report import Amount, Measurement
from podproof._apiserver.client import APIServerClient
from podproof.options import Options
from tests.support.fake_api import authenticator_for

ROUNDS = 31
CALLERS = 10
"""In each round, for each competitor. One more round, which is not counted, opens the connections."""

TOKENS = 2 * (ROUNDS + 1) * CALLERS
GOAL = 1.3


def rows() -> Iterator[Measurement]:
    """Measure unknown callers, on the emulated API server and on the one that KUBECONFIG names."""
    with emulated_cluster(TOKENS) as cluster:
        yield _row("the emulated API server", cluster)
    if not os.environ.get("KUBECONFIG"):
        yield Measurement(
            "an unknown caller, authenticated over a real API server", None, why="not run: KUBECONFIG is not set"
        )
        return
    with real_cluster(os.environ["KUBECONFIG"], TOKENS) as cluster:
        yield _row("a real API server", cluster)


def _row(where: str, cluster: ClusterAccess) -> Measurement:
    client = APIServerClient(load=cluster.load)
    authenticator = authenticator_for(client, Options(audience=(AUDIENCE,)))
    with closing(client), closing(authenticator):
        tokens = iter(cluster.tokens)
        competitors: dict[str, Callable[[str], object]] = {
            "podproof": lambda token: authenticator.authenticate(token, None),
            "urllib3": BareAPI(cluster.kubeconfig).authenticate,
        }
        works = {name: partial(_run, authenticate, tokens) for name, authenticate in competitors.items()}
        interleaved(works, 1)
        repeats = interleaved(works, ROUNDS)
    ratio = repeats.ratio("podproof", "urllib3")
    return Measurement(
        f"an unknown caller, authenticated over {where}",
        Amount(repeats.median("podproof"), "s"),
        "the same two HTTP calls by urllib3, kept alive",
        Amount(repeats.median("urllib3"), "s"),
        ratio,
        f"≤ {GOAL}x",
        ratio <= GOAL,
    )


def _run(authenticate: Callable[[str], object], tokens: Iterator[str]) -> float:
    unknown: Sequence[str] = [next(tokens) for _ in range(CALLERS)]

    def work() -> None:
        for token in unknown:
            authenticate(token)

    return timed(work, len(unknown))
