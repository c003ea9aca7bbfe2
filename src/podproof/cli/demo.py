"""`podproof demo`: which requests are allowed and which denied, with real HTTP on loopback addresses and no cluster."""

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
from podproof.cli.table import Colour, Row, format_table, use_colour
from podproof.options import Options
from podproof.testing import Cluster
from podproof.wsgi import IDENTITY, PodAuthMiddleware

BOB = "127.0.0.1"
ALICE = "127.0.0.2"
MALLORY = "127.0.0.3"


class Scenario(NamedTuple):
    """One request to Bob: the caller, its address and credential; and the expected result, a status and its reason."""

    caller: str
    address: str
    credential: str
    token: str | None
    status: int
    reason: str


def run_demo(out: TextIO) -> int:
    """Print a table of requests and results, and return 0 if all results are as expected, else 1."""
    with Cluster() as cluster, _run_bob(cluster) as (port, denials):
        rows = []
        for scenario in _scenarios(cluster):
            status, caller = _send_request(scenario, port)
            reason = f"authenticated as {caller}" if status == 200 else denials.last_code
            expected = (status, reason) == (scenario.status, scenario.reason)
            result = f"{status} {reason}" + ("" if expected else "  UNEXPECTED")
            colour = (Colour.GOOD if status == 200 else Colour.DOUBTFUL) if expected else Colour.BAD
            rows.append(Row((scenario.caller, scenario.address, scenario.credential, result), colour))
        reviews = cluster.count("tokenreviews")
    unexpected = sum(row.colour is Colour.BAD for row in rows)
    out.write(format_table(("caller", "from", "credential", "result"), rows, coloured=use_colour(out)))
    verdict = f"{unexpected} of {len(rows)} results not as expected" if unexpected else "all results as expected"
    out.write(f"\n{reviews} TokenReviews; {verdict}\n")
    return 1 if unexpected else 0


def _scenarios(cluster: Cluster) -> list[Scenario]:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=(ALICE,))
    cluster.pod("default/mallory-pod", service_account="mallory", addresses=(MALLORY,))
    token = alice.token(audience="bob")
    unbound = cluster.service_account("default/alice").token(audience="bob")
    allowed = "authenticated as default/alice in default/alice-pod"
    return [
        Scenario("alice", ALICE, "token for bob", token, 200, allowed),
        Scenario("alice", ALICE, "the same token again", token, 200, allowed),
        Scenario("mallory", MALLORY, "alice's token for bob, stolen", token, 403, "wrong-address"),
        Scenario("alice", ALICE, "token for carol", alice.token(audience="carol"), 401, "wrong-audience"),
        Scenario("mallory", ALICE, "token signed by mallory", cluster.forge(token), 401, "token-review-failed"),
        Scenario("alice", ALICE, "expired token", alice.token("bob", lifetime=-3600), 401, "expired"),
        Scenario("alice", ALICE, "token not bound to a pod", unbound, 401, "not-pod-bound"),
        Scenario("mallory", MALLORY, "no token", None, 401, "no-credential"),
    ]


def _send_request(scenario: Scenario, port: int) -> tuple[int, str]:
    """Return the status, and for 200 the caller as Bob sees it."""
    connection = HTTPConnection(BOB, port, timeout=10, source_address=(scenario.address, 0))
    headers = {"Authorization": f"Bearer {scenario.token}"} if scenario.token else {}
    try:
        connection.request("GET", "/whoami", headers=headers)
        response = connection.getresponse()
        body = json.loads(response.read())
    finally:
        connection.close()
    caller = f"{body['service_account']} in {body['pod']}" if response.status == 200 else ""
    return response.status, caller


class _DenialLog(logging.Handler):
    """Keeps the code of the last denied request that the middleware has logged."""

    last_code = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last_code = getattr(record, "code", "")


@contextmanager
def _run_bob(cluster: Cluster) -> Iterator[tuple[int, _DenialLog]]:
    """Run the server; yield its port and its log of denied requests."""
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))
    authenticator = build_authenticator(Options(audience=("bob",)), client)
    app = PodAuthMiddleware(_whoami, authenticator=authenticator)
    log, denials = logging.getLogger("podproof"), _DenialLog()
    log.addHandler(denials)
    server: BaseWSGIServer = make_server(BOB, 0, app, threaded=True, request_handler=_QuietRequestHandler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, denials
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        log.removeHandler(denials)
        authenticator.close()
        client.close()


class _QuietRequestHandler(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


@Request.application
def _whoami(request: Request) -> Response:
    caller = request.environ[IDENTITY]
    body = {"service_account": str(caller.service_account), "pod": str(caller.pod)}
    return Response(json.dumps(body), mimetype="application/json")
