"""Server CPU a request, for a known caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec

from benchmarks.clusters import emulated_cluster
from benchmarks.repeats import Repeats, interleaved, joined
from benchmarks.report import Amount, Row
from benchmarks.servers import GTHREAD, H11, HTTPTOOLS, SYNC, served

PROCESSES = 5
"""That each app is served by, one after the other: two processes of the same app differ by up to 5 % all their life."""

ROUNDS = 12
CONNECTIONS = 4
"""Not more: what 8 requests at once hold lies just below the 700 objects at which the collector is called for, so that
with them the bare app never pays for it, and whatever is around it does."""

REQUESTS = 80
"""On each connection, in each round: many short rounds give a truer median than few long ones, on a busy machine."""

Apps = Mapping[str, int]
"""Names of apps, and by how much fewer requests each gets because it is slow."""

STARLETTE: Apps = {
    "with_starlette:bare": 1,
    "with_starlette:podproof": 1,
    "with_starlette:podproof_and_extras": 1,
    "with_starlette:least": 1,
    "with_starlette:authentication": 1,
    "with_starlette:base_http": 1,
    "with_starlette:pyjwt": 2,
    "with_fastapi:review": 20,
}
COMPETITORS = {
    "with_starlette:authentication": "AuthenticationMiddleware, its backend doing nothing",
    "with_starlette:base_http": "BaseHTTPMiddleware doing nothing",
    "with_starlette:pyjwt": "PyJWT RS256 with PyJWKClient on each request",
    "with_fastapi:review": "a FastAPI dependency: create_token_review on each request",
}
BARE_STARLETTE: Apps = {"with_starlette:bare": 1, "with_starlette:podproof": 1, "with_starlette:least": 1}
BARE_FLASK: Apps = {"with_flask:bare": 1, "with_flask:podproof": 1, "with_flask:least": 1}


def rows() -> Iterator[Row]:
    """Measure requests of a known caller."""
    with emulated_cluster(1) as cluster:
        environ = {"KUBECONFIG": cluster.kubeconfig}
        headers = {
            "Authorization": f"Bearer {cluster.tokens[0]}",
            "User-Agent": "python-requests/2.32.5",
            "Accept-Encoding": "gzip, deflate",
            "Accept": "*/*",
            "Connection": "keep-alive",
        }
        repeats = _measure(STARLETTE, H11, environ, headers)
        yield _beside_bare("Starlette on uvicorn", repeats, "with_starlette:podproof", 1.10)
        yield _beside_bare("the same, extras installed", repeats, "with_starlette:podproof_and_extras")
        for name, beside in COMPETITORS.items():
            yield _beside_another(repeats, name, beside)
        if find_spec("httptools") and find_spec("uvloop"):
            repeats = _measure(BARE_STARLETTE, HTTPTOOLS, environ, headers)
            yield _beside_bare("Starlette on uvicorn[standard]", repeats, "with_starlette:podproof")
        for server, command in (("sync", SYNC), ("gthread", GTHREAD)):
            repeats = _measure(BARE_FLASK, command, environ, headers)
            yield _beside_bare(f"Flask on gunicorn ({server})", repeats, "with_flask:podproof", 1.05)


def _measure(apps: Apps, server: Sequence[str], environ: Mapping[str, str], headers: Mapping[str, str]) -> Repeats:
    parts = []
    for _ in range(PROCESSES):
        with ExitStack() as servers:
            running = {app: servers.enter_context(served(app, server, environ, headers, CONNECTIONS)) for app in apps}
            measures = {app: partial(running[app].measure, REQUESTS // fewer) for app, fewer in apps.items()}
            parts.append(interleaved(measures, ROUNDS))
    return joined(parts)


def _beside_bare(what: str, repeats: Repeats, ours: str, goal: float | None = None) -> Row:
    bare, least = (f"{ours.partition(':')[0]}:{name}" for name in ("bare", "least"))
    ratio = repeats.ratio(ours, bare)
    return Row(
        f"server CPU a request, a known caller: {what}",
        Amount(repeats.median(ours), "s"),
        "the bare app",
        Amount(repeats.median(bare), "s"),
        ratio,
        "" if goal is None else f"≤ {goal:.2f}x",
        None if goal is None else ratio <= goal,
        "" if goal is None else f"the least that one can do makes it {repeats.ratio(least, bare):.2f}x",
    )


def _beside_another(repeats: Repeats, another: str, beside: str) -> Row:
    ours = "with_starlette:podproof"
    ratio = repeats.ratio(ours, another)
    return Row(
        "server CPU a request, a known caller: Starlette on uvicorn",
        Amount(repeats.median(ours), "s"),
        beside,
        Amount(repeats.median(another), "s"),
        ratio,
        "< 1x",
        ratio < 1,
        f"the least that one can do makes it {repeats.ratio('with_starlette:least', another):.2f}x",
    )
