"""`podproof demo`: who is known and who is refused, with real HTTP on loopback addresses and no cluster."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from threading import Thread
from typing import NamedTuple, TextIO

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._request.setup import build_authenticator
from podproof.cli.table import Colour, Row, table, wants_colour
from podproof.options import Options
from podproof.testing import Cluster
from podproof.wsgi import IDENTITY, PodAuthMiddleware

BOB = "127.0.0.1"
ALICE = "127.0.0.2"
MALLORY = "127.0.0.3"


class Call(NamedTuple):
    """One call to Bob: who, from which address, with what; and what must come of it, a status and why."""

    who: str
    address: str
    what: str
    token: str | None
    status: int
    why: str


def demo(out: TextIO) -> int:
    """Print the table, and return 0 if every call came out as it must, 1 else."""
    with Cluster() as cluster, _bob(cluster) as (port, refusals):
        calls = _calls(cluster)
        rows = []
        for call in calls:
            status, answer = _call(call, port)
            why = f"known as {answer}" if status == 200 else refusals.last
            right = (status, why) == (call.status, call.why)
            cells = (call.who, call.address, call.what, f"{status} {why}" + ("" if right else "  WRONG"))
            rows.append(Row(cells, (Colour.GOOD if status == 200 else Colour.DOUBTFUL) if right else Colour.BAD))
        reviews = cluster.count("tokenreviews")
    wrong = sum(row.colour is Colour.BAD for row in rows)
    out.write(table(("who called", "from", "with", "what came of it"), rows, coloured=wants_colour(out)))
    verdict = "as it must" if not wrong else f"{wrong} of them not as they must"
    out.write(f"\n{len(calls)} calls to Bob, who asked the API server {reviews} times: {verdict}\n")
    return 1 if wrong else 0


def _calls(cluster: Cluster) -> list[Call]:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=(ALICE,))
    cluster.pod("default/mallory-pod", service_account="mallory", addresses=(MALLORY,))
    token = alice.token(audience="bob")
    return [
        Call("alice", ALICE, "her token for bob", token, 200, "known as default/alice in default/alice-pod"),
        Call("alice", ALICE, "the same token again", token, 200, "known as default/alice in default/alice-pod"),
        Call("mallory", MALLORY, "alice's token for bob, stolen", token, 403, "wrong-address"),
        Call("alice", ALICE, "her token for carol", alice.token(audience="carol"), 401, "wrong-audience"),
        Call("mallory", ALICE, "a token signed by herself", cluster.forge(token), 401, "token-review-failed"),
        Call("alice", ALICE, "a token that has expired", alice.token("bob", lifetime=-3600), 401, "expired"),
        Call(
            "alice",
            ALICE,
            "a token bound to no pod",
            cluster.service_account("default/alice").token(audience="bob"),
            401,
            "not-pod-bound",
        ),
        Call("mallory", MALLORY, "no token", None, 401, "no-credential"),
    ]


def _call(call: Call, port: int) -> tuple[int, str]:
    connection = HTTPConnection(BOB, port, timeout=10, source_address=(call.address, 0))
    try:
        connection.request("GET", "/whoami", headers={"Authorization": f"Bearer {call.token}"} if call.token else {})
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        return response.status, ""
    return response.status, f"{answer['service_account']} in {answer['pod']}"


class _Refusals(logging.Handler):
    """Keeps the code of the last refusal that Bob has logged."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = getattr(record, "code", "")


@contextmanager
def _bob(cluster: Cluster) -> Iterator[tuple[int, _Refusals]]:
    """Run a Bob; give his port and his refusals."""
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))
    authenticator = build_authenticator(Options(audience=("bob",)), client)
    log, refusals = logging.getLogger("podproof"), _Refusals()
    log.addHandler(refusals)
    server: BaseWSGIServer = make_server(
        BOB, 0, PodAuthMiddleware(_whoami, authenticator=authenticator), threaded=True, request_handler=_Quiet
    )
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, refusals
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        log.removeHandler(refusals)
        authenticator.close()
        client.close()


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


@Request.application
def _whoami(request: Request) -> Response:
    caller = request.environ[IDENTITY]
    body = {"service_account": str(caller.service_account), "pod": str(caller.pod)}
    return Response(json.dumps(body), mimetype="application/json")
