"""Servers that put a header's address in the place of the connection's: it is noticed whatever the header holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from daphne.utils import parse_x_forwarded_for
from granian.utils.proxies import wrap_wsgi_with_proxy_headers
from hypothesis import example, given
from hypothesis import strategies as st
from tornado.httpserver import _HTTPRequestContext
from tornado.httputil import HTTPHeaders, HTTPInputError
from twisted.web.http_headers import Headers as TwistedHeaders
from waitress.proxy_headers import proxy_headers_middleware

from podproof._request.peer import find_peer
from podproof._request.wsgi_request import read_request
from podproof.errors import PeerUnknown
from podproof.testing import Cluster
from tests.support.cluster_env import ClusterEnv
from tests.support.modes import Mode, modes_in_turn
from tests.support.server_process import ServerProcess, run_server

HOME, PROXY = "10.1.2.3", "127.0.0.1"
ALICE, MALLORY = "127.0.0.2", "127.0.0.3"

Environ = dict[str, Any]
Headers = list[tuple[str, str]]


def wrapped(wrap: Callable[[Any], Any], headers: Headers) -> Environ:
    """Return the environ that an app gets which such a middleware wraps."""
    seen: Environ = {}

    def app(environ: Environ, _: object) -> list[bytes]:
        seen.update(environ)
        return []

    with suppress(IndexError):  # waitress at an address of which only a port is left, before it calls the app
        wrap(app)(environ_of(headers), lambda *_: None)
    return seen or environ_of([])  # a malformed header is denied without the app


def environ_of(headers: Headers) -> Environ:
    environ: Environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", "REMOTE_ADDR": PROXY}
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def tornado(headers: Headers) -> Environ:
    parsed = HTTPHeaders()
    try:
        for name, value in headers:
            parsed.add(name, value)
    except HTTPInputError:
        return environ_of([])
    stream: Any = SimpleNamespace(socket=SimpleNamespace(family=2), close=None)
    context = _HTTPRequestContext(stream, (PROXY, 4711), "http")
    context._apply_xheaders(parsed)
    return environ_of(headers) | {"REMOTE_ADDR": context.remote_ip}


def daphne(headers: Headers) -> Environ:
    parsed = TwistedHeaders()
    for name, value in headers:
        parsed.addRawHeader(name.encode(), value.encode("latin-1"))
    (address, _), _ = parse_x_forwarded_for(parsed, original_addr=[PROXY, 4711])
    return environ_of(headers) | {"REMOTE_ADDR": address}


def waitress(app: Any, *, header: str, count: int) -> Any:
    return proxy_headers_middleware(app, "*", count, {header})


REWRITERS: Mapping[str, Callable[[Headers], Environ]] = {
    "tornado": tornado,
    "daphne": daphne,
    "granian": partial(wrapped, partial(wrap_wsgi_with_proxy_headers, trusted_hosts="*")),
    **{
        f"waitress {header} {count}": partial(wrapped, partial(waitress, header=header, count=count))
        for header in ("x-forwarded-for", "forwarded")
        for count in (1, 2)
    },
}

PIECES = [HOME, f"[{HOME}]", f"::ffff:{HOME}", f"{HOME}:80", "10\\.1.2.3", "2001:db8::1", "[2001:db8::1]", PROXY]
PIECES += ["for=", "For=", "by=", "x=", "proto=http", "unknown", *'",;=[]:%-_ \t\\', ", ", '="']
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["X-Forwarded-For", "Forwarded", "X-Real-Ip"]),
        st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    ),
    max_size=3,
)


@pytest.mark.trap(23, 53)
@given(headers=HEADERS)
@example(headers=[("X-Real-Ip", HOME)])
@example(headers=[("X-Forwarded-For", HOME)])
@example(headers=[("X-Forwarded-For", "2001:db8::1:80")])
@example(headers=[("Forwarded", f"for={HOME}")])
@example(headers=[("Forwarded", 'for="10\\.1.2.3"')])
@example(headers=[("Forwarded", 'for=":"')])
@pytest.mark.parametrize("rewriter", REWRITERS)
def test_an_address_that_a_server_took_from_a_header_is_noticed(rewriter: str, headers: Headers) -> None:
    request = read_request(REWRITERS[rewriter](headers))
    for trusted in ((), (ip_network("127.0.0.0/8"),)):
        if request.remote != PROXY:
            with pytest.raises(PeerUnknown):
                find_peer(
                    request.remote,
                    trusted,
                    x_forwarded_for=request.x_forwarded_for,
                    forwarded=request.forwarded,
                    others=request.address_headers,
                )


@pytest.mark.parametrize("rewriter", REWRITERS)
def test_each_of_these_does_rewrite_the_address(rewriter: str) -> None:
    headers = [("X-Forwarded-For", HOME), ("Forwarded", f"for={HOME}")]
    assert REWRITERS[rewriter](headers)["REMOTE_ADDR"] == HOME


TORNADO = """
import sys
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.wsgi import WSGIContainer
from examples.flask_bob import app
HTTPServer(WSGIContainer(app), xheaders=len(sys.argv) > 2).listen(int(sys.argv[1]), "127.0.0.1")
IOLoop.current().start()
"""
A2WSGI = """
import sys
import uvicorn
from a2wsgi import WSGIMiddleware
from examples.flask_bob import app
uvicorn.run(WSGIMiddleware(app), port=int(sys.argv[1]), http="h11", proxy_headers=len(sys.argv) > 2)
"""
WAITRESS = ["-m", "waitress", "--listen", "127.0.0.1:{port}"]
DAPHNE = ["-m", "daphne", "-b", "127.0.0.1", "-p", "{port}"]
FLASK, STARLETTE = "examples.flask_bob:app", "examples.starlette_bob:app"
SERVERS = {
    "tornado": ["-c", TORNADO, "{port}"],
    "waitress": [*WAITRESS, FLASK],
    "daphne": [*DAPHNE, STARLETTE],
    "a2wsgi": ["-c", A2WSGI, "{port}"],
}
BELIEVING = {
    "tornado": [*SERVERS["tornado"], "xheaders"],
    "waitress": [*WAITRESS, "--trusted-proxy=*", "--trusted-proxy-headers=x-forwarded-for", FLASK],
    "waitress, Forwarded": [*WAITRESS, "--trusted-proxy=*", "--trusted-proxy-headers=forwarded", FLASK],
    "daphne": [*DAPHNE, "--proxy-headers", STARLETTE],
    "a2wsgi": [*SERVERS["a2wsgi"], "proxy headers"],
}
NAMES = ["X-Forwarded-For", "Forwarded", "X-Real-Ip", "True-Client-IP", "CF-Connecting-IP", "Client-IP"]


@pytest.fixture(scope="module")
def cluster_env(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Cluster() as cluster:
        env = ClusterEnv(cluster)
        env.add_pod("alice", ALICE)
        env.add_pod("local", PROXY)
        yield env


def check_no_claim_is_believed(server: ServerProcess, token: str) -> None:
    for source in (MALLORY, PROXY):
        for name in NAMES:
            for address in (ALICE, f"{ALICE}:80", f"{ALICE}, {MALLORY}", f"{MALLORY}, {ALICE}"):
                value = ", ".join(f"for={one}" for one in address.split(", ")) if name == "Forwarded" else address
                assert server.get(source, token, headers={name: value}).status == 403, (source, name, value)


@pytest.mark.trap(22, 53)
@pytest.mark.parametrize(("name", "mode"), modes_in_turn(SERVERS))
def test_a_stolen_token_is_denied_on_every_server(
    name: str, mode: Mode, cluster_env: ClusterEnv, tmp_path: Path
) -> None:
    token = cluster_env.tokens["alice"]
    with run_server(SERVERS[name], tmp_path, **cluster_env.environ | mode.environ) as server:
        assert server.get(ALICE, token).status == 200
        assert server.get(MALLORY, token).status == 403
        check_no_claim_is_believed(server, token)
        assert server.get(ALICE, token).status == 200
        assert server.get(ALICE, None, "/healthz").status == 200


@pytest.mark.trap(23, 53)
@pytest.mark.parametrize(("name", "mode"), modes_in_turn(BELIEVING))
def test_a_stolen_token_is_denied_where_the_server_believes_a_header(
    name: str, mode: Mode, cluster_env: ClusterEnv, tmp_path: Path
) -> None:
    token = cluster_env.tokens["alice"]
    with run_server(BELIEVING[name], tmp_path, **cluster_env.environ | mode.environ) as server:
        assert server.get(ALICE, token).status == 200
        check_no_claim_is_believed(server, token)
        log = server.log.read_text()
        assert "may have been taken from a forwarded header" in log
        assert "Tornado without xheaders, waitress without trusted_proxy, daphne without --proxy-headers" in log
