"""`podproof demo`: which requests are allowed and which denied, with real HTTP on loopback addresses and no cluster."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection
from threading import Thread
from typing import Literal, NamedTuple, TextIO

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._request.setup import build_authenticator
from podproof.cli.table import Colour, Row, format_table, use_colour
from podproof.options import Options
from podproof.testing._emulator.cluster import Cluster
from podproof.wsgi import IDENTITY, PodAuthMiddleware

HOSTS = ("127.0.0.2", "127.0.0.3")
FEW_HOSTS = ("::1", "127.0.0.1")
"""Alice's address and Mallory's. macOS has one address of each family on its loopback interface, Linux a network."""
BOB = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

Servers = Mapping[socket.AddressFamily, tuple[str, int]]
"""Bob's host and port by family of addresses."""


class Scenario(NamedTuple):
    """One request to Bob: the caller, its address and credential; and the expected result, a status and its reason."""

    caller: str
    address: str
    credential: str
    token: str | None
    status: int
    reason: str


def run_demo(out: TextIO, verify: Literal["review", "keys"] = "review") -> int:
    """Print a table of requests and results, and return 0 if all results are as expected, else 1."""
    hosts = HOSTS if all(map(_can_bind, HOSTS)) else FEW_HOSTS
    with Cluster() as cluster, _run_bob(cluster, verify, {*map(_family, hosts)}) as (servers, denials):
        rows = []
        for scenario in _scenarios(cluster, *hosts):
            status, caller = _send_request(scenario, servers)
            reason = f"authenticated as {caller}" if status == 200 else denials.last_code
            expected = (status, reason) == (scenario.status, scenario.reason)
            result = f"{status} {reason}" + ("" if expected else "  UNEXPECTED")
            colour = (Colour.GOOD if status == 200 else Colour.DOUBTFUL) if expected else Colour.BAD
            rows.append(Row((scenario.caller, scenario.address, scenario.credential, result), colour))
        reviews = cluster.count("tokenreviews")
    unexpected = sum(row.colour is Colour.BAD for row in rows)
    out.write(format_table(("caller", "from", "credential", "result"), rows, coloured=use_colour(out)))
    verdict = f"{unexpected} of {len(rows)} results not as expected" if unexpected else "all results as expected"
    out.write(f"\n{reviews} TokenReview{'s' * (reviews != 1)}; {verdict}\n")
    return 1 if unexpected else 0


def _can_bind(host: str) -> bool:
    with socket.socket(_family(host)) as candidate:
        try:
            candidate.bind((host, 0))
        except OSError:
            return False
        return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _scenarios(cluster: Cluster, alices_host: str, mallorys_host: str) -> list[Scenario]:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=(alices_host,))
    cluster.pod("default/mallory-pod", service_account="mallory", addresses=(mallorys_host,))
    token = alice.token(audience="bob")
    unbound = cluster.service_account("default/alice").token(audience="bob")
    allowed = "authenticated as default/alice in default/alice-pod"
    return [
        Scenario("alice", alices_host, "token for bob", token, 200, allowed),
        Scenario("alice", alices_host, "the same token again", token, 200, allowed),
        Scenario("mallory", mallorys_host, "alice's token for bob, stolen", token, 403, "wrong-address"),
        Scenario("alice", alices_host, "token for carol", alice.token(audience="carol"), 401, "wrong-audience"),
        Scenario("mallory", alices_host, "token signed by mallory", cluster.forge(token), 401, "token-review-failed"),
        Scenario("alice", alices_host, "expired token", alice.token("bob", lifetime=-3600), 401, "expired"),
        Scenario("alice", alices_host, "token not bound to a pod", unbound, 401, "not-pod-bound"),
        Scenario("mallory", mallorys_host, "no token", None, 401, "no-credential"),
    ]


def _send_request(scenario: Scenario, servers: Servers) -> tuple[int, str]:
    """Return the status, and for 200 the caller as Bob sees it."""
    host, port = servers[_family(scenario.address)]
    connection = HTTPConnection(host, port, timeout=10, source_address=(scenario.address, 0))
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
def _run_bob(
    cluster: Cluster, verify: Literal["review", "keys"], families: AbstractSet[socket.AddressFamily]
) -> Iterator[tuple[Servers, _DenialLog]]:
    """Run the server; yield where it listens, and its log of denied requests."""
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))
    authenticator = build_authenticator(Options(audience=("bob",), verify=verify), client)
    app = PodAuthMiddleware(_whoami, authenticator=authenticator)
    log, denials = logging.getLogger("podproof"), _DenialLog()
    log.addHandler(denials)
    try:
        with ExitStack() as stack:
            ports = {family: stack.enter_context(_serve(app, BOB[family])) for family in families}
            yield {family: (BOB[family], port) for family, port in ports.items()}, denials
    finally:
        log.removeHandler(denials)
        authenticator.close()
        client.close()


@contextmanager
def _serve(app: PodAuthMiddleware, host: str) -> Iterator[int]:
    """Serve an app; yield its port."""
    server: BaseWSGIServer = make_server(host, 0, app, threaded=True, request_handler=_QuietRequestHandler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _QuietRequestHandler(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


@Request.application
def _whoami(request: Request) -> Response:
    caller = request.environ[IDENTITY]
    body = {"service_account": str(caller.service_account), "pod": str(caller.pod)}
    return Response(json.dumps(body), mimetype="application/json")
