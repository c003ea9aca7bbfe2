"""Proxies: believed where they are named, noticed where a server believes them unasked, told in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from granian.utils.proxies import wrap_asgi_with_proxy_headers
from hypercorn.middleware import ProxyFixMiddleware
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from podproof._request.peer import find_peer
from podproof.errors import PeerUnknown
from podproof.testing import Cluster
from tests.security import caddy, envoy, nginx
from tests.security.proxy_process import ADDRESS, BEFORE
from tests.support.modes import Mode, modes_in_turn, pairs_in_turn
from tests.support.server_process import ServerProcess, raw_request, run_server

ALICE, MALLORY = "127.0.0.2", "127.0.0.3"
KNOWN = {"service_account": "default/alice", "pod": "default/alice-pod"}

FLASK = ["-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:{port}", "examples.flask_bob:app"]
STARLETTE = ["-m", "uvicorn", "--port", "{port}", "examples.starlette_bob:app"]
UVICORN_WORKER = [*FLASK[:-1], "--worker-class", "uvicorn_worker.UvicornWorker", "examples.starlette_bob:app"]
InFrontOf = Callable[[ServerProcess, Path], AbstractContextManager[ServerProcess]]
PROXIES: dict[str, InFrontOf] = {"nginx": nginx.in_front_of} if nginx.BINARY or nginx.REQUIRED else {}
PROXIES |= {"envoy": envoy.in_front_of, "caddy": caddy.in_front_of}
WATCHING = (Mode("keys", "watch"), Mode("review", "watch"))
"""The modes of the apps behind all proxies; those behind one each take the others too."""

BOBS = {"flask": FLASK, "starlette": [*STARLETTE, "--no-proxy-headers"]}


@dataclass(frozen=True)
class Place:
    """An app, the proxy in front of it, and Alice's token."""

    app: ServerProcess
    proxy: ServerProcess
    token: str

    def status(self, kind: str, source: str, *lines: str) -> int:
        """Send a request with Alice's token and these lines to a proxy of some kind, and return the status."""
        lines = (f"Authorization: Bearer {self.token}", *lines)
        return int(self.proxy.send(source, raw_request("/whoami", *lines, host=kind)).split(b" ", 2)[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> str:
    return cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE]).token("bob")


def serving_app(
    command: list[str], folder: Path, cluster: Cluster, **options: str
) -> AbstractContextManager[ServerProcess]:
    """Run an example with these options."""
    return run_server(command, folder, PODPROOF_AUDIENCE="bob", KUBECONFIG=str(cluster.kubeconfig), **options)


@pytest.fixture(scope="module", params=pairs_in_turn(BOBS, WATCHING))
def app(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    trusted = f"{ADDRESS}/31"
    assert BEFORE in map(str, ip_network(trusted))
    folder = tmp_path_factory.mktemp("app")
    name, mode = request.param
    with serving_app(BOBS[name], folder, cluster, PODPROOF_TRUSTED_PROXIES=trusted, **mode.environ) as app:
        yield app


@pytest.fixture(scope="module", params=PROXIES)
def place(
    request: pytest.FixtureRequest, app: ServerProcess, alice: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with PROXIES[request.param](app, tmp_path_factory.mktemp("proxy")) as proxy:
        yield Place(app, proxy, alice)


KINDS = ("appends", "overwrites", "forwarded", "underscores", "both", "twice")

FORGED = {
    "one header": [f"X-Forwarded-For: {ALICE}"],
    "with a port": [f"X-Forwarded-For: {ALICE}:4711"],
    "a list": [f"X-Forwarded-For: {ALICE}, {MALLORY}, {ALICE}"],
    "two headers": [f"X-Forwarded-For: {MALLORY}", f"X-Forwarded-For: {ALICE}"],
    "a list that ends open": [f"X-Forwarded-For: {ALICE},"],
    "through the proxy itself": [f"X-Forwarded-For: {ALICE}, {ADDRESS}"],
    "underscores": [f"X_Forwarded_For: {ALICE}"],
    "underscores too": [f"X_Forwarded_For: {ALICE}", f"X-Forwarded-For: {ALICE}"],
    "forwarded": [f"Forwarded: for={ALICE}"],
    "forwarded twice": ["Forwarded: for=unknown", f"Forwarded: for={ALICE}"],
    "a quote left open": [f'Forwarded: for={ALICE};x="'],
    "two quotes left open": [f'Forwarded: for={ALICE};x="', 'Forwarded: for="'],
    "an element left open": [f"Forwarded: for={ALICE};"],
    "both": [f"X-Forwarded-For: {ALICE}", f"Forwarded: for={ALICE}"],
    "other headers": [f"X-Real-IP: {ALICE}", f"Client-IP: {ALICE}", f"Remote-Addr: {ALICE}", f"Via: 1.1 {ALICE}"],
}


@pytest.mark.trap(22)
@pytest.mark.parametrize("kind", KINDS)
def test_behind_a_proxy_the_address_of_the_caller_is_compared(place: Place, kind: str) -> None:
    assert place.status(kind, ALICE) == 200
    assert place.status(kind, MALLORY) == 403


@pytest.mark.trap(22)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lines", FORGED.values(), ids=FORGED)
def test_behind_a_proxy_no_header_of_the_caller_changes_its_address(place: Place, kind: str, lines: list[str]) -> None:
    assert place.status(kind, MALLORY, *lines) == 403


@pytest.mark.trap(22)
@pytest.mark.parametrize("lines", FORGED.values(), ids=FORGED)
def test_a_header_that_comes_past_the_proxy_is_not_believed(app: ServerProcess, alice: str, lines: list[str]) -> None:
    direct = Place(app, app, alice)
    assert direct.status("bob", ALICE) == 200
    assert direct.status("bob", MALLORY, *lines) == 403


@pytest.mark.trap(22)
def test_behind_a_proxy_what_was_written_before_it_is_skipped(place: Place) -> None:
    for line in ("X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: junk, unknown", f"X-Forwarded-For: {MALLORY}"):
        assert place.status("appends", ALICE, line) == 200
    for line in ("Forwarded: for=10.0.0.1", "Forwarded: for=unknown, proto=https", f"Forwarded: for={MALLORY}"):
        assert place.status("forwarded", ALICE, line) == 200


@pytest.mark.trap(22, 24)
@pytest.mark.parametrize(("name", "mode"), modes_in_turn(PROXIES))
def test_the_log_says_to_name_a_proxy_that_is_not_trusted(
    name: str, mode: Mode, cluster: Cluster, alice: str, tmp_path: Path
) -> None:
    with serving_app(FLASK, tmp_path, cluster, **mode.environ) as app, PROXIES[name](app, tmp_path) as proxy:
        for kind in KINDS:
            assert Place(app, proxy, alice).status(kind, ALICE) == 403
        log = app.log.read_text()
        assert f"from {ADDRESS}, and pod default/alice-pod has {ALICE}" in log
        assert "trusted_proxies" in log


@pytest.mark.trap(23)
@pytest.mark.parametrize(
    ("command", "flag", "said"),
    [
        (STARLETTE, "--no-proxy-headers", "--no-proxy-headers"),
        (UVICORN_WORKER, "--forwarded-allow-ips=", "FORWARDED_ALLOW_IPS=''"),
    ],
    ids=["uvicorn", "uvicorn-worker"],
)
def test_the_fix_in_the_log_works_for_a_server_that_believes_the_proxy_unasked(
    command: list[str], *, flag: str, said: str, cluster: Cluster, alice: str, tmp_path: Path
) -> None:
    trusted = {"PODPROOF_TRUSTED_PROXIES": "127.0.0.1"}
    in_front_of = next(iter(PROXIES.values()))
    with serving_app(command, tmp_path, cluster, **trusted) as app, in_front_of(app, tmp_path) as proxy:
        place = Place(app, proxy, alice)
        assert place.status("unbound", ALICE) == 403
        assert place.status("unbound", MALLORY, f"X-Forwarded-For: {ALICE}") == 403
        log = app.log.read_text()
        assert said in log
        assert "name your proxies in podproof's trusted_proxies" in log
    with serving_app([*command, flag], tmp_path, cluster, **trusted) as app, in_front_of(app, tmp_path) as proxy:
        place = Place(app, proxy, alice)
        assert place.status("unbound", ALICE) == 200
        assert place.status("unbound", MALLORY, f"X-Forwarded-For: {ALICE}") == 403


async def nothing(*_: object) -> None:
    """Be an app that does not answer."""


Headers = list[tuple[bytes, bytes]]

HOME = "10.1.2.3"
REWRITERS: Mapping[str, Callable[[Any], Any]] = {
    "uvicorn": partial(ProxyHeadersMiddleware, trusted_hosts="127.0.0.1"),
    "uvicorn *": partial(ProxyHeadersMiddleware, trusted_hosts="*"),
    "granian": partial(wrap_asgi_with_proxy_headers, trusted_hosts="127.0.0.1"),
    "granian *": partial(wrap_asgi_with_proxy_headers, trusted_hosts="*"),
    "hypercorn": ProxyFixMiddleware,
    "hypercorn, two hops": partial(ProxyFixMiddleware, trusted_hops=2),
    "hypercorn, modern": partial(ProxyFixMiddleware, mode="modern"),
    "hypercorn, modern, two hops": partial(ProxyFixMiddleware, mode="modern", trusted_hops=2),
}


def rewritten(rewriter: str, headers: Headers) -> str:
    """Return the address that a middleware makes of 127.0.0.1 when it sees these headers."""
    seen: list[str] = []

    async def app(scope: Any, *_: object) -> None:
        seen.append(scope["client"][0])

    scope = {"type": "http", "scheme": "http", "headers": headers, "client": ("127.0.0.1", 4711)}
    asyncio.run(REWRITERS[rewriter](app)(scope, nothing, nothing))
    return seen[0]


def occurrences(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


PIECES = [HOME, f"[{HOME}]", f"::ffff:{HOME}", f"{HOME}:80", "2001:db8::1", "[2001:db8::1]", "127.0.0.1", "unknown"]
PIECES += ["for=", "For=", "by=", "x=", "proto=http", *'",;=[]:%-_ \t\xa0\\', ", "]
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"x-forwarded-for", b"forwarded"]),
        st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "".join(pieces).encode("latin-1")),
    ),
    max_size=3,
)


@pytest.mark.trap(23)
@given(headers=HEADERS)
@example(headers=[(b"forwarded", f"junk;for={HOME}".encode())])
@example(headers=[(b"forwarded", f'x=", for={HOME};y="'.encode())])
@example(headers=[(b"forwarded", f'by=", for={HOME};y="'.encode())])
@pytest.mark.parametrize("rewriter", REWRITERS)
def test_an_address_that_any_middleware_took_from_a_header_is_noticed(rewriter: str, headers: Headers) -> None:
    address = rewritten(rewriter, [*headers])
    for trusted in ((), (ip_network("127.0.0.0/8"),), (ip_network("0.0.0.0/0"), ip_network("::/0"))):
        if address != "127.0.0.1":
            with pytest.raises(PeerUnknown):
                find_peer(
                    address,
                    trusted,
                    x_forwarded_for=occurrences(headers, b"x-forwarded-for"),
                    forwarded=occurrences(headers, b"forwarded"),
                )


def walked(socket: str, hops: Sequence[str], trusted: Sequence[str]) -> str | None:
    """Return the first untrusted address from the right, None where there is none."""
    return next((one for one in reversed([*hops, socket]) if one not in trusted), None)


HOPS = ("10.9.0.1", "10.9.0.2", "fd00::9")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "2001:db8::1", *HOPS)


@pytest.mark.trap(22, 56)
@given(
    socket=st.sampled_from(("10.9.0.9", "10.0.0.9")),
    lines=st.lists(st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3), max_size=3),
    modern=st.booleans(),
)
def test_proxies_are_walked_from_right_to_left_over_all_occurrences(
    socket: str, lines: list[list[str]], *, modern: bool
) -> None:
    trusted = (*HOPS, "10.9.0.9")
    values = [", ".join(line) for line in lines]
    if modern:
        values = [", ".join(f'for="[{one}]"' if ":" in one else f"for={one}" for one in line) for line in lines]
    headers: dict[str, Any] = {"forwarded" if modern else "x_forwarded_for": values}
    find = partial(find_peer, socket, [ip_network(one) for one in trusted], **headers)
    expected = walked(socket, [one for line in lines for one in line], trusted)
    if expected is None:
        with pytest.raises(PeerUnknown, match=r"none of them is the caller|sent neither"):
            find()
    else:
        assert find() == expected
