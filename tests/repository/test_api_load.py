"""The table of docs/choosing-a-mode.md: what an app asks of the API server, computed, and counted on simulated time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from random import Random
from urllib.parse import parse_qs, urlsplit

import pytest

from benchmarks.api_load import BOOKMARK, DAY, MODES, Fleet, markdown, point
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._apiserver.permissions import Permission
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.key_set import KeySet
from podproof._authentication.key_source import APIServerKeys
from podproof._authentication.pod_view import ALL_NAMESPACES, PodView
from podproof._authentication.pod_watch import PodReflector
from podproof._authentication.pods import PodLookup, PodStore, read_record
from podproof._authentication.signing_keys import SigningKeyVerifier
from podproof._authentication.token_review import TokenReviewVerifier
from podproof._authentication.token_verifier import TokenVerifier
from podproof.options import Options
from podproof.testing import Cluster
from tests.support.fake_api import Clock
from tests.support.markdown import read_page
from tests.support.pod_events import VERSION_36, bookmark

PAGE = "docs/choosing-a-mode.md"
SECONDS, STEP = 300, 1


def test_the_page_has_the_tables_as_they_are_computed() -> None:
    assert read_page(PAGE).partition("<!-- api load -->\n")[2].partition("<!-- /api load -->")[0] == markdown()


def test_a_budget_is_passed_at_the_first_fleet_that_is_over_it() -> None:
    for mode in MODES:
        first = point(50, *mode)
        before = Fleet(first.callers - 10, first.processes - 1)
        assert sum(before.load(*mode)) <= 50 < sum(first.load(*mode))


@pytest.mark.parametrize(("verify", "pods"), MODES)
def test_the_emulated_api_server_counts_what_is_computed(verify: str, pods: str) -> None:
    fleet, time = Fleet(10, 2), Clock()
    with Cluster(tls=False, clock=time) as cluster, ExitStack() as stack:
        callers = [
            cluster.pod(f"default/caller-{number}", service_account="alice", addresses=[f"10.0.0.{number}"])
            for number in range(fleet.callers)
        ]
        tokens = [one.token("bob") for one in callers]
        load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        client = stack.enter_context(closing(APIServerClient(load=load, monotonic=time)))
        records = [read_record(client.read_pod("default", one.name, time() + 5) or {}) for one in callers]
        views = [PodView(fallback=PodLookup(client), monotonic=time, now=time) for _ in range(fleet.processes)]
        for view in views:
            view.replace(ALL_NAMESPACES, records)
        apps = [
            stack.enter_context(closing(make_app(cluster, client, time, verify, view if pods == "watch" else None)))
            for view in views
        ]
        cluster.requests.clear()
        for _ in range(0, SECONDS, STEP):
            for app in apps:
                for number, token in enumerate(tokens):
                    app.authenticate(token, f"10.0.0.{number}")
            time.passes(STEP)
            for view in views:
                view.confirm(ALL_NAMESPACES)
        computed = fleet.load(verify, pods)
        counted = (cluster.count("tokenreviews"), cluster.count("pods"), count_path(cluster, "/openid/v1/jwks"))
        assert counted == pytest.approx([SECONDS * one for one in computed[:3]])
        assert len(cluster.requests) == sum(counted)


def make_app(
    cluster: Cluster, client: APIServerClient, time: Clock, verify: str, view: PodView | None
) -> Authenticator:
    verifier: TokenVerifier = TokenReviewVerifier(client, ["bob"])
    if verify == "keys":
        keys = {cluster.issuer: KeySet(APIServerKeys(client), monotonic=time)}
        verifier = SigningKeyVerifier(keys, ["bob"], review=verifier, now=time)
    store: PodStore = PodLookup(client) if view is None else view
    return Authenticator(Options(audience=("bob",)), verifier, store, now=time, monotonic=time)


def count_path(cluster: Cluster, path: str) -> int:
    return sum(request.path == path for request in cluster.requests)


def test_a_watch_is_begun_as_often_as_is_computed() -> None:
    stream = DayOfWatches()
    view = PodView(monotonic=stream.time, now=stream.time)
    reflector = PodReflector(stream, view, ALL_NAMESPACES, selectors={}, uniform=Random(1).uniform)
    stream.close = reflector._closing.set  # type: ignore[method-assign]
    reflector.run()
    assert stream.watches == pytest.approx(DAY * Fleet(10, 1).load("keys", "watch").watches, rel=0.05)


class DayOfWatches:
    """A stream of an API server on which no pod changes: each watch has its bookmarks, and ends after its time."""

    def __init__(self) -> None:
        self.time = Clock()
        self.watches = 0
        self._end = self.time() + DAY

    @contextmanager
    def get(self, path: str, permission: Permission, *, max_line: int = 0) -> Iterator[Iterator[bytes]]:
        query = parse_qs(urlsplit(path).query)
        yield self._lines(float(query["timeoutSeconds"][0])) if query else iter([VERSION_36])

    def _lines(self, seconds: float) -> Iterator[bytes]:
        self.watches += 1
        yield bookmark("1", ends_list=True)
        while seconds > 0:
            self.time.passes(min(BOOKMARK, seconds))
            seconds -= BOOKMARK
            yield bookmark("1")
        if self.time() > self._end:
            self.close()

    def close(self) -> None: ...
