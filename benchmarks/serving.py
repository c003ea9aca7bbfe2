"""Server CPU per request of a cached caller, beside the bare app and what one would do instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

from benchmarks.clusters import emulated_cluster
from benchmarks.load import LoadRequest
from benchmarks.repeats import Repeats, concatenate, interleaved
from benchmarks.report import Amount, Measurement
from benchmarks.servers import GTHREAD, H11, HTTPTOOLS, SYNC, served

PROCESSES = 5
"""How many processes serve each app, one after the other: two of the same app differ by up to 5 % all their life."""

ROUNDS = 12
CONNECTIONS = 4
"""Not more: what 8 concurrent requests hold is just below the 700 objects at which CPython's garbage collector runs, so
that the bare app would never pay for it, and any middleware would."""

REQUESTS = 80
"""On each connection, in each round: on a busy machine, many short rounds give a better median than few long ones."""

Apps = Mapping[str, int]
"""Names of apps, and the divisor of each one's number of requests: slow ones get fewer."""

STARLETTE: Apps = {
    "with_starlette:bare": 1,
    "with_starlette:podproof": 1,
    "with_starlette:podproof_and_extras": 1,
    "with_starlette:minimum": 1,
    "with_starlette:authentication": 1,
    "with_starlette:base_http": 1,
    "with_starlette:pyjwt": 2,
    "with_fastapi:token_review": 20,
}
COMPETITORS = {
    "with_starlette:authentication": "AuthenticationMiddleware with an empty backend",
    "with_starlette:base_http": "an empty BaseHTTPMiddleware",
    "with_starlette:pyjwt": "PyJWT RS256 with PyJWKClient on each request",
    "with_fastapi:token_review": "a FastAPI dependency: create_token_review on each request",
}
STARLETTE_MINIMUM: Apps = {"with_starlette:bare": 1, "with_starlette:podproof": 1, "with_starlette:minimum": 1}
FLASK_MINIMUM: Apps = {"with_flask:bare": 1, "with_flask:podproof": 1, "with_flask:minimum": 1}

BODY = b'{"amount": 12.50, "currency": "EUR"}'


def rows() -> Iterator[Measurement]:
    """Measure requests of a cached caller."""
    with emulated_cluster(1) as cluster:
        environ = {"KUBECONFIG": cluster.kubeconfig}
        headers = {
            "Authorization": f"Bearer {cluster.tokens[0]}",
            "User-Agent": "python-requests/2.32.5",
            "Accept-Encoding": "gzip, deflate",
            "Accept": "*/*",
            "Connection": "keep-alive",
        }
        get = LoadRequest(headers=headers)
        post = LoadRequest("POST", "/echo", {**headers, "Content-Type": "application/json"}, BODY)
        repeats = measure(STARLETTE, H11, environ, get)
        yield _beside_bare("GET, Starlette on uvicorn", repeats, "with_starlette:podproof", 1.10)
        yield _beside_bare("the same, extras installed", repeats, "with_starlette:podproof_and_extras")
        for name, beside in COMPETITORS.items():
            yield _beside_competitor(repeats, name, beside)
        repeats = measure(STARLETTE_MINIMUM, H11, environ, post)
        yield _beside_bare("POST with a small body, Starlette on uvicorn", repeats, "with_starlette:podproof", 1.10)
        for what, ours, request in (
            ("GET with rules", "with_rules", get),
            ("GET of an exempt path", "with_exempt", get),
            ("GET with X-Forwarded-For", "podproof", replace(get, headers={**headers, "X-Forwarded-For": "10.9.9.9"})),
            ('GET with source_address="off"', "with_source_address_off", get),
            ("WebSocket handshake", "podproof", replace(get, path="/ws", websocket=True)),
        ):
            apps = {"with_starlette:bare": 1, f"with_starlette:{ours}": 1}
            repeats = measure(apps, H11, environ, request)
            yield _beside_bare(f"{what}, Starlette on uvicorn", repeats, f"with_starlette:{ours}")
        if find_spec("httptools") and find_spec("uvloop"):
            repeats = measure(STARLETTE_MINIMUM, HTTPTOOLS, environ, get)
            yield _beside_bare("GET, Starlette on uvicorn[standard]", repeats, "with_starlette:podproof")
        for server, command in (("sync", SYNC), ("gthread", GTHREAD)):
            repeats = measure(FLASK_MINIMUM, command, environ, get)
            yield _beside_bare(f"GET, Flask on gunicorn ({server})", repeats, "with_flask:podproof", 1.07)


def measure(apps: Apps, server: Sequence[str], environ: Mapping[str, str], request: LoadRequest) -> Repeats:
    """Return the processor seconds per request of each app, measured in turns, in several processes each."""
    parts = []
    for _ in range(PROCESSES):
        with ExitStack() as servers:
            running = {app: servers.enter_context(served(app, server, environ, request, CONNECTIONS)) for app in apps}
            measures = {app: partial(running[app].measure, REQUESTS // divisor) for app, divisor in apps.items()}
            parts.append(interleaved(measures, ROUNDS))
    return concatenate(parts)


def _beside_bare(what: str, repeats: Repeats, ours: str, goal: float | None = None) -> Measurement:
    bare, minimum = (f"{ours.partition(':')[0]}:{name}" for name in ("bare", "minimum"))
    ratio = repeats.ratio(ours, bare)
    return Measurement(
        f"server CPU per request of a cached caller: {what}",
        Amount(repeats.median(ours), "s"),
        "the bare app",
        Amount(repeats.median(bare), "s"),
        ratio,
        "" if goal is None else f"≤ {goal:.2f}x",
        None if goal is None else ratio <= goal,
        "" if goal is None else f"a hash and a dict alone make it {repeats.ratio(minimum, bare):.2f}x",
    )


def _beside_competitor(repeats: Repeats, another: str, beside: str) -> Measurement:
    ours = "with_starlette:podproof"
    ratio = repeats.ratio(ours, another)
    return Measurement(
        "server CPU per request of a cached caller: GET, Starlette on uvicorn",
        Amount(repeats.median(ours), "s"),
        beside,
        Amount(repeats.median(another), "s"),
        ratio,
        "< 1x",
        ratio < 1,
        f"a hash and a dict alone make it {repeats.ratio('with_starlette:minimum', another):.2f}x",
    )
