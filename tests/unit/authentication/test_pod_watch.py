"""What keeps the view current: a list and a watch, on a scripted stream and on the emulated API server."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time as real_time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._apiserver.response import ConnectionFailed, LineTooLong, StreamSilent, UnexpectedStatus
from podproof._authentication.pod_view import ALL_NAMESPACES, PodView
from podproof._authentication.pod_watch import MAX_BACKOFF, REST, WORK, PodReflector, PodWatch
from podproof._authentication.pods import PodLookup
from podproof.errors import PodFinished, PodGone, ServiceAccountMismatch, Unavailable
from podproof.identity import Pod, ServiceAccount
from podproof.testing import Cluster
from tests.support.fake_api import Clock, uid_of
from tests.support.pod_events import (
    VERSION_20,
    VERSION_36,
    Lines,
    ScriptedStream,
    bookmark,
    error_event,
    event,
    page,
    pod_json,
)

ALICE = ServiceAccount("default", "alice", "account-uid")
WAIT = 10.0
CUT = ConnectionFailed("connection failed with ProtocolError")
SILENT = StreamSilent("nothing came for the whole read timeout")


def restarts(reason: str) -> float:
    return REGISTRY.get_sample_value("podproof_pod_watch_restarts_total", {"reason": reason}) or 0


@dataclass
class Run:
    """What a reflector did with a script: the view, the queries, and the longest that each pause may be."""

    view: PodView
    queries: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    streamed: bool | None = None

    @property
    def pods(self) -> list[str]:
        return sorted(name for pods in self.view._pods.values() for name in pods)

    @property
    def kinds(self) -> list[str]:
        """What was asked for: a streamed list, a watch from a version, or a page of a list."""
        return [
            "streamed"
            if "sendInitialEvents" in one
            else f"watch {one['resourceVersion']}"
            if "watch" in one
            else "page"
            for one in self.queries
        ]


def run(
    *responses: Lines | Exception,
    scope: str = ALL_NAMESPACES,
    version: Sequence[bytes | Exception] = (VERSION_36,),
    time: Clock | None = None,
    **more: Any,
) -> Run:
    """Run a reflector in this thread through a script, until that is over."""
    changed: list[str] = []
    view = PodView(
        namespaces=[scope] if scope else [], listeners=[changed.append], monotonic=time or Clock(), now=time or Clock()
    )
    outcome = Run(view, changed=changed)
    stream = ScriptedStream(*responses, version=version)
    defaults: dict[str, Any] = {"selectors": {}, "thread_time": lambda: 0.0}
    reflector = PodReflector(
        stream,
        view,
        scope,
        **defaults | more,
        wait=lambda _, seconds: outcome.pauses.append(seconds),
        uniform=lambda _, most: most,
    )
    stream.at_end = reflector.close
    reflector.run()
    assert stream.closed
    urls = [urlsplit(path) for path in stream.paths if path != "/version"][:-1]  # the last one is beyond the script
    outcome.paths = [url.path for url in urls]
    outcome.queries = [
        {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()} for url in urls
    ]
    outcome.streamed = reflector._streamed_lists
    return outcome


LISTED = [event("ADDED", 5), bookmark("7", ends_list=True)]
"""A streamed list of Alice's pod, at version 7."""


def test_a_streamed_list_is_the_view_once_it_is_complete() -> None:
    outcome = run([event("ADDED", 5), event("ADDED", 6, "bob-pod"), bookmark("7", ends_list=True)])
    assert outcome.pods == ["alice-pod", "bob-pod"]
    query = outcome.queries[0]
    assert query.pop("timeoutSeconds") == "480"
    assert query == {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "resourceVersion": "",
    }
    assert outcome.paths == ["/api/v1/pods"]


def test_changes_during_a_streamed_list_are_part_of_it() -> None:
    outcome = run(
        [
            event("ADDED", 5),
            event("ADDED", 5, "bob-pod"),
            event("MODIFIED", 6, phase="Succeeded"),
            event("DELETED", 7, "bob-pod"),
            event("DELETED", 8, "carol-pod"),
            bookmark("8", ends_list=True),
        ]
    )
    assert outcome.pods == ["alice-pod"]
    found = outcome.view.find("default", "alice-pod")
    assert found is not None
    assert found.phase == "Succeeded"


def test_a_streamed_list_that_breaks_off_leaves_the_view_as_it_was() -> None:
    outcome = run([*LISTED, error_event(410)], [event("ADDED", 8, "bob-pod"), CUT], [event("ADDED", 8, "bob-pod")])
    assert outcome.pods == ["alice-pod"]
    assert outcome.kinds == ["streamed"] * 3


def test_the_events_after_a_streamed_list_come_on_the_same_stream() -> None:
    outcome = run(
        [*LISTED, event("ADDED", 8, "bob-pod"), event("MODIFIED", 9, phase="Failed"), event("DELETED", 10, "bob-pod")]
    )
    assert outcome.pods == ["alice-pod"]
    assert outcome.changed == ["uid-of-alice-pod", "uid-of-bob-pod"]
    assert outcome.pauses == []


def test_a_watch_goes_on_from_the_last_version_that_it_had() -> None:
    outcome = run(LISTED, [event("ADDED", 8, "bob-pod")], [bookmark("20")], [event("DELETED", 21, "bob-pod")], [])
    assert outcome.kinds == ["streamed", "watch 7", "watch 8", "watch 20", "watch 21"]
    assert {"watch", "allowWatchBookmarks", "timeoutSeconds", "resourceVersion"} == outcome.queries[1].keys()
    assert outcome.pods == ["alice-pod"]


def test_a_watch_that_ends_as_it_should_is_followed_at_once_by_the_next() -> None:
    before = restarts("ended")
    assert run(LISTED, [bookmark("8")]).pauses == []
    assert restarts("ended") == before + 2


def test_watches_that_end_without_an_event_are_not_begun_in_a_tight_loop() -> None:
    outcome = run(LISTED, [], [], [], [bookmark("8")], [])
    assert outcome.pauses == [1, 2, 4, 1]
    assert outcome.kinds[-1] == "watch 8"


@pytest.mark.parametrize("gone", [UnexpectedStatus(410, None), [error_event(410)], [bookmark("8"), error_event(410)]])
def test_a_version_that_is_too_old_leads_to_a_new_list_after_a_random_time(gone: Any) -> None:
    before = restarts("expired")
    outcome = run(LISTED, gone, [event("ADDED", 30, "bob-pod"), bookmark("31", ends_list=True)])
    assert outcome.kinds == ["streamed", "watch 7", "streamed"]
    assert outcome.pauses == [5]
    assert outcome.pods == ["bob-pod"]
    assert outcome.changed == ["uid-of-alice-pod"]
    assert restarts("expired") == before + 1


def test_a_recreated_pod_is_reported_by_its_old_uid() -> None:
    outcome = run([*LISTED, event("DELETED", 8), event("ADDED", 9, uid="new")], [event("ADDED", 10, uid="newest")])
    assert outcome.changed == ["uid-of-alice-pod", "new"]


def test_a_stream_that_is_cut_is_taken_up_where_it_was() -> None:
    before = restarts("connection")
    outcome = run([*LISTED, event("ADDED", 8, "bob-pod"), CUT], [event("ADDED", 9, "carol-pod")])
    assert outcome.kinds == ["streamed", "watch 8"]
    assert outcome.pauses == [1]
    assert outcome.pods == ["alice-pod", "bob-pod", "carol-pod"]
    assert restarts("connection") == before + 1


def test_failures_in_a_row_wait_twice_as_long_each_up_to_a_bound() -> None:
    outcome = run(LISTED, *[CUT] * 7, [bookmark("8"), CUT])
    assert outcome.pauses == [1, 2, 4, 8, 16, MAX_BACKOFF, MAX_BACKOFF, 1]
    assert outcome.pods == ["alice-pod"]


@pytest.mark.parametrize(("retry_after", "pause"), [(None, 1), (7, 7), (3600, MAX_BACKOFF)])
def test_the_api_server_may_ask_for_a_longer_pause(retry_after: float | None, pause: float) -> None:
    assert run(LISTED, UnexpectedStatus(429, retry_after)).pauses == [pause]


@pytest.mark.parametrize("status", [500, 504])
def test_a_version_that_is_refused_again_and_again_leads_to_a_new_list(status: int) -> None:
    outcome = run(LISTED, *[UnexpectedStatus(status, None)] * 2, [error_event(status)], LISTED)
    assert outcome.kinds == ["streamed", "watch 7", "watch 7", "watch 7", "streamed"]


def test_too_many_requests_are_not_met_with_a_new_list() -> None:
    assert run(LISTED, *[UnexpectedStatus(429, None)] * 4, []).kinds[-1] == "watch 7"


def test_a_silent_watch_leads_to_a_new_list() -> None:
    before = restarts("silent")
    outcome = run([*LISTED, SILENT], LISTED)
    assert outcome.kinds == ["streamed", "streamed"]
    assert restarts("silent") == before + 1


MALFORMED: list[bytes] = [
    b"",
    b"{",
    b"7",
    b"[" * 100_000,
    b'{"type": "ADDED"}',
    b'{"type": "ADDED", "object": 7}',
    b'{"type": "ADDED", "object": {}}',
    b'{"type": "ADDED", "object": {"metadata": {}}}',
    b'{"type": "RENAMED", "object": {"metadata": {}}}',
    b'{"type": ["ADDED"], "object": {"metadata": {}}}',
    event("ADDED", 8)[:-20],
    event("ADDED", 8).replace(b'"default"', b"null"),
    event("ADDED", 8).replace(b'"8"', b"8"),
    event("ADDED", 8).replace(b'"8"', b'""'),
    bookmark(""),
]


@pytest.mark.parametrize("line", MALFORMED)
def test_an_event_that_is_none_leads_to_a_new_list(line: bytes) -> None:
    before = restarts("malformed")
    outcome = run([*LISTED, line], LISTED)
    assert outcome.kinds == ["streamed", "streamed"]
    assert outcome.pauses == [1]
    assert restarts("malformed") == before + 1


def test_a_line_that_is_too_long_leads_to_a_new_list() -> None:
    before = restarts("malformed")
    assert run([*LISTED, LineTooLong("longer")], LISTED).kinds == ["streamed", "streamed"]
    assert restarts("malformed") == before + 1


def test_an_error_of_an_unknown_kind_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    before = restarts("error")
    assert run([*LISTED, KeyError("Bearer abc")], LISTED).kinds == ["streamed", "streamed"]
    assert restarts("error") == before + 1
    assert "an unexpected KeyError" in caplog.text
    assert "abc" not in caplog.text


@pytest.mark.parametrize("code", [None, "410", 500])
def test_another_error_event_is_a_failure(code: object) -> None:
    before = restarts("status")
    assert run([*LISTED, error_event(code)], []).kinds == ["streamed", "watch 7"]
    assert restarts("status") == before + 1


def test_a_failure_is_logged_once_and_named_to_those_who_wait(caplog: pytest.LogCaptureFixture) -> None:
    forbidden = Unavailable("the API server forbids us to list and watch pods (403)")
    before = restarts("unavailable")
    outcome = run(forbidden, forbidden, scope="default")
    assert [record.message for record in caplog.records] == [
        "the view of the pods in namespace default is not kept current just now: the API server forbids us to list and "
        "watch pods (403)"
    ]
    assert restarts("unavailable") == before + 2
    with pytest.raises(Unavailable, match="not been listed yet: the API server forbids us to list and watch pods"):
        outcome.view.get(ALICE, "alice-pod", "uid-of-alice-pod", 0)


def test_what_is_usual_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    run(LISTED, [error_event(410)], [*LISTED, SILENT], UnexpectedStatus(422, None), [page(version=3)], [])
    assert caplog.records == []


def test_a_failure_is_logged_again_after_a_time_without(caplog: pytest.LogCaptureFixture) -> None:
    run([*LISTED, CUT], CUT, [bookmark("8"), CUT], [])
    assert len(caplog.records) == 2


def test_one_namespace_is_watched_by_its_own_path() -> None:
    outcome = run([event("ADDED", 5, namespace="shop"), bookmark("7", ends_list=True)], scope="shop")
    assert outcome.paths == ["/api/v1/namespaces/shop/pods"]
    assert outcome.pods == ["alice-pod"]


def test_a_pod_of_another_namespace_is_not_taken() -> None:
    before = restarts("malformed")
    outcome = run([event("ADDED", 5, namespace="elsewhere"), bookmark("7", ends_list=True)], scope="shop")
    assert outcome.pods == []
    assert restarts("malformed") == before + 1


def test_selectors_go_with_each_list_and_watch() -> None:
    selectors = {"labelSelector": "app in (a,b)", "fieldSelector": "spec.nodeName=node1"}
    outcome = run([page(version=5)], [], version=[VERSION_20], selectors=selectors)
    assert [outcome.queries[0].items() >= selectors.items(), outcome.queries[1].items() >= selectors.items()] == [
        True
    ] * 2


def test_an_old_api_server_lists_in_pages() -> None:
    outcome = run(
        [page(pod_json("a"), pod_json("b"), version=5, go_on="token=/+")],
        [page(pod_json("c"), version=5)],
        [event("ADDED", 6, "d")],
        version=[VERSION_20],
        page_size=2,
    )
    assert outcome.pods == ["a", "b", "c", "d"]
    assert outcome.queries[:2] == [{"limit": "2"}, {"limit": "2", "continue": "token=/+"}]
    assert outcome.kinds[2] == "watch 5"


@pytest.mark.parametrize(
    "version",
    [
        VERSION_36,
        b'{"major": "1", "minor": "27+"}',
        b'{"major": "2", "minor": "0"}',
        b'{"major": "1"}',
        b"junk",
        UnexpectedStatus(404, None),
        Unavailable("the API server forbids us to get /version"),
    ],
)
def test_an_api_server_that_may_have_streamed_lists_is_asked_for_one(version: Any) -> None:
    assert run(LISTED, version=[version]).kinds == ["streamed"]


@pytest.mark.parametrize("version", [VERSION_20, b'{"major": "1", "minor": "26"}'])
def test_an_api_server_that_cannot_have_streamed_lists_is_not(version: bytes) -> None:
    assert run([page(version=5)], version=[version]).kinds == ["page"]


def test_the_version_is_asked_for_again_if_the_connection_failed() -> None:
    outcome = run([page(version=5)], version=[CUT, VERSION_20])
    assert (outcome.kinds, outcome.pauses) == (["page"], [1])


@pytest.mark.parametrize(
    "response",
    [
        UnexpectedStatus(400, None),
        UnexpectedStatus(422, None),
        [event("ADDED", 5), bookmark("6")],
        [event("ADDED", 5), SILENT],
        [error_event(400)],
    ],
)
def test_an_api_server_without_streamed_lists_gives_pages_from_then_on(response: Any) -> None:
    before = restarts("unsupported")
    outcome = run(response, [page(pod_json("a"), version=5)], [error_event(410)], [page(version=9)])
    assert outcome.kinds == ["streamed", "page", "watch 5", "page"]
    assert outcome.pauses == [5]
    assert (outcome.streamed, restarts("unsupported")) == (False, before + 1)


@pytest.mark.parametrize("status", [429, 500])
def test_a_streamed_list_that_fails_is_tried_again(status: int) -> None:
    assert run(UnexpectedStatus(status, None), LISTED).kinds == ["streamed", "streamed"]


def test_a_bad_request_after_a_streamed_list_says_nothing_about_it() -> None:
    assert run([*LISTED, error_event(400)], []).kinds == ["streamed", "watch 7"]


PAGE = [page(pod_json("a"), pod_json("b"), version=5)]
STREAM = [event("ADDED", 5, "a"), event("ADDED", 5, "b"), bookmark("7", ends_list=True)]


@pytest.mark.parametrize(
    ("version", "responses"),
    [(VERSION_20, [PAGE, [error_event(410)], PAGE]), (VERSION_36, [STREAM, [error_event(410)], STREAM])],
)
def test_a_second_list_leaves_time_for_requests(version: bytes, responses: Any) -> None:
    numbers = count()
    outcome = run(*responses, version=[version], thread_time=lambda: next(numbers) * WORK)
    assert outcome.pauses == [5, REST, REST]  # none in the first list


def test_a_token_of_a_page_that_is_too_old_leads_to_a_new_list() -> None:
    outcome = run(
        [page(pod_json("a"), version=5, go_on="token")],
        UnexpectedStatus(410, None),
        [page(pod_json("b"), version=9)],
        version=[VERSION_20],
    )
    assert outcome.pods == ["b"]
    assert [query.get("continue") for query in outcome.queries] == [None, "token", None]
    assert outcome.pauses == [5]


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"items": [], "metadata": 7}',
        b'{"items": {}, "metadata": {"resourceVersion": "5"}}',
        b'{"items": [7], "metadata": {"resourceVersion": "5"}}',
        b'{"items": [], "metadata": {}}',
    ],
)
def test_a_page_that_is_none_is_a_failure(text: bytes) -> None:
    before = restarts("malformed")
    assert run([text], [page(version=5)], version=[VERSION_20]).kinds == ["page", "page"]
    assert restarts("malformed") == before + 1


def test_bookmarks_and_events_keep_the_view_current(time: Clock) -> None:
    ages: list[float | None] = []

    def lines() -> Iterator[bytes]:
        yield from LISTED
        for line in (bookmark("8"), event("MODIFIED", 9)):
            time.passes(60)
            yield line
            ages.append(outcome_view[0].age())

    outcome_view: list[PodView] = []
    original = PodView.replace

    def remember(view: PodView, *arguments: Any) -> None:
        outcome_view.append(view)
        original(view, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PodView, "replace", remember)
        run(lines(), time=time)
    assert ages == [0, 0]


def names_and_phases() -> st.SearchStrategy[list[tuple[str, str, str]]]:
    action = st.sampled_from(
        ["put", "put", "finish", "move", "delete", "recreate", "cut", "end", "expire", "relist", "bookmark", "break"]
    )
    return st.lists(st.tuples(action, st.sampled_from("abc"), st.sampled_from(["10.0.0.1", "10.0.0.2"])), max_size=40)


@dataclass
class ModelStore:
    """What an API server has: pods by name, and the script of a reflector that is told of each change."""

    streamed: bool
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: int = 100
    uids: int = 0
    script: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin_list()

    def begin_list(self) -> None:
        if self.streamed:
            lines = [json.dumps({"type": "ADDED", "object": one}).encode() for one in self.pods.values()]
            self.script.append([*lines, bookmark(str(self.version), ends_list=True)])
        else:
            pods = [*self.pods.values()]
            self.script += [[page(one, version=self.version, go_on="more")] for one in pods[:-1]]
            self.script += [[page(*pods[-1:], version=self.version)], []]

    def send(self, kind: str, name: str, **changes: Any) -> None:
        self.version += 1
        thing = pod_json(name, version=self.version, **changes)
        if kind == "DELETED":
            del self.pods[name]
        else:
            self.pods[name] = thing
        self.script[-1].append(json.dumps({"type": kind, "object": thing}).encode())

    def apply(self, action: str, name: str, address: str) -> None:
        known = self.pods.get(name)
        uid = known["metadata"]["uid"] if known else ""
        match action:
            case "delete" if known:
                self.send("DELETED", name, uid=uid)
            case "finish" | "move" if known:
                phase = "Succeeded" if action == "finish" else "Running"
                self.send("MODIFIED", name, uid=uid, phase=phase, addresses=[address])
            case "put" | "recreate" if not known or action == "recreate":
                if known:
                    self.send("DELETED", name, uid=uid)
                self.uids += 1
                self.send("ADDED", name, uid=f"uid-{self.uids}", addresses=[address])
            case "bookmark":
                self.script[-1].append(bookmark(str(self.version)))
            case "cut":
                self.script[-1].append(CUT)
                self.script.append([])
            case "end":
                self.script.append([])
            case "expire" | "relist" | "break":
                self.script[-1].append({"expire": error_event(410), "relist": SILENT, "break": b'{"type": "AD'}[action])
                # While nobody watches, what happens is seen by the next list alone.
                self.pods.pop(name, None)
                self.version += 1
                self.begin_list()
            case _:
                pass


@given(names_and_phases(), st.booleans())
def test_after_any_events_cuts_and_lists_the_view_is_what_the_api_server_has(
    actions: list[tuple[str, str, str]], streamed: bool
) -> None:
    store = ModelStore(streamed)
    uids: set[str] = set()
    for action, name, address in actions:
        store.apply(action, name, address)
        uids |= {one["metadata"]["uid"] for one in store.pods.values()}
    outcome = run(*store.script, version=[VERSION_36 if streamed else VERSION_20])
    seen = {
        name: (one.uid, one.phase, one.addresses) for pods in outcome.view._pods.values() for name, one in pods.items()
    }
    assert seen == {
        name: (
            one["metadata"]["uid"],
            one["status"]["phase"],
            tuple(entry["ip"] for entry in one["status"]["podIPs"]),
        )
        for name, one in store.pods.items()
    }
    assert outcome.view.count == len(store.pods)
    gone = uids - {one["metadata"]["uid"] for one in store.pods.values()}
    assert gone <= set(outcome.changed)


@pytest.mark.usefixtures("without_coverage")
def test_20_000_pods_are_decoded_as_they_arrive() -> None:
    number_of_pods = 20_000
    padding = {f"example.com/annotation-{number}": "x" * 1000 for number in range(5)}

    def lines() -> Iterator[bytes]:
        for number in range(number_of_pods):
            thing = pod_json(
                f"pod-{number:06}", uid_of(str(number)), addresses=[f"10.1.{number // 250}.{number % 250}"]
            )
            thing["metadata"]["annotations"] = padding
            yield json.dumps({"type": "ADDED", "object": thing}).encode()
        yield bookmark("7", ends_list=True)

    one_line = len(next(lines()))
    gc.collect()
    tracemalloc.start()
    outcome = run(lines())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\n{peak / number_of_pods:.0f} bytes per pod at the peak, of {one_line} bytes of JSON")
    assert outcome.view.count == number_of_pods
    assert one_line > 5000
    assert peak < number_of_pods * 1000  # the records, and twice their names while the list is not complete


# On the emulated API server, over HTTP.


@dataclass
class Pauses:
    """Counts the pauses before new attempts, each of which is over at once."""

    count: int = 0
    more: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, _: threading.Event, seconds: float) -> None:
        with self.more:
            self.count += 1
            self.more.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait for this many pauses from now on."""
        with self.more:
            wanted = self.count + number
            assert self.more.wait_for(lambda: self.count >= wanted, WAIT), "there was no new attempt in time"


@dataclass
class Watched:
    """A watch of an emulated cluster, and the UIDs that it reports."""

    cluster: Cluster
    watch: PodWatch
    changed: list[str]
    pauses: Pauses

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until the view is as it should be; it is looked at after each change."""
        changes = self.watch.start()._changed
        with changes:
            assert changes.wait_for(condition, WAIT), "the view has not changed in time"

    def has(self, *names: str) -> Callable[[], bool]:
        """Return a condition: the view has these pods and no others."""
        view = self.watch.start()
        return lambda: sorted(name for pods in view._pods.values() for name in pods) == sorted(names)

    def get(self, name: str, uid: str, account: str = "alice", namespace: str = "default") -> Pod:
        account_of = ServiceAccount(namespace, account)
        return self.watch.get(account_of, name, uid, real_time.monotonic() + WAIT).pod

    def watches(self) -> int:
        return sum("watch" in request.query for request in self.cluster.requests)


class WatchFactory:
    """Makes watches, which wait for nothing between two attempts, and ends them."""

    def __init__(self) -> None:
        self._made: list[tuple[PodWatch, APIServerClient]] = []

    def __call__(self, cluster: Cluster, *, live: bool = False, **options: Any) -> Watched:
        client = APIServerClient(
            load=partial(load_configuration, environ={"KUBECONFIG": str(options.pop("kubeconfig", cluster.kubeconfig))})
        )
        changed: list[str] = []
        fallback = PodLookup(client) if live else None
        pauses = Pauses()
        complete: dict[str, Any] = {"read_timeout": WAIT, "uniform": lambda least, _: least, "wait": pauses} | options
        watch = PodWatch(client, fallback=fallback, listeners=[changed.append], **complete)
        self._made.append((watch, client))
        return Watched(cluster, watch, changed, pauses)

    def close(self) -> None:
        for watch, client in self._made:
            watch.close()
            client.close()


@pytest.fixture
def make_watch() -> Iterator[WatchFactory]:
    with closing(WatchFactory()) as factory:
        yield factory


@pytest.fixture(params=["1.36", "1.20"])
def watched(request: pytest.FixtureRequest, make_watch: WatchFactory) -> Iterator[Watched]:
    """Return a watch of a cluster with a streamed list, and of one that lists in pages, of two pods each."""
    with Cluster(tls=request.param == "1.36", version=request.param) as cluster:
        watched = make_watch(cluster, page_size=2)
        yield watched
        watched.watch.close()


def test_the_life_of_a_pod_is_seen(watched: Watched) -> None:
    alice = watched.cluster.pod("default/alice-pod", service_account="alice", addresses=[], phase="Pending")
    assert watched.get("alice-pod", alice.uid).addresses == ()
    alice.update(phase="Running", addresses=["10.0.0.7", "fd00::7"])
    watched.wait_for(lambda: watched.changed)
    assert watched.get("alice-pod", alice.uid).addresses == ("10.0.0.7", "fd00::7")
    alice.delete()
    alice.update(host_network=True)
    watched.wait_for(lambda: len(watched.changed) == 2)
    assert watched.get("alice-pod", alice.uid).host_network
    alice.update(service_account="mallory")
    watched.wait_for(lambda: len(watched.changed) == 3)
    with pytest.raises(ServiceAccountMismatch):
        watched.get("alice-pod", alice.uid)
    alice.update(service_account="alice", phase="Succeeded")
    watched.wait_for(lambda: len(watched.changed) == 4)
    with pytest.raises(PodFinished):
        watched.get("alice-pod", alice.uid)
    alice.remove()
    watched.wait_for(lambda: len(watched.changed) == 5)
    with pytest.raises(PodGone, match="was deleted"):
        watched.get("alice-pod", alice.uid)
    again = watched.cluster.pod("default/alice-pod", service_account="alice")
    watched.wait_for(watched.has("alice-pod"))
    watched.wait_for(lambda: watched.get("alice-pod", again.uid).addresses)
    with pytest.raises(PodGone):
        watched.get("alice-pod", alice.uid)
    assert {*watched.changed} == {alice.uid, again.uid}  # a new pod gets its address after it was made


def test_pods_that_there_are_come_with_the_list(watched: Watched) -> None:
    pods = [watched.cluster.pod(f"default/pod-{number}", service_account="alice") for number in range(5)]
    for pod in pods:
        assert watched.get(pod.name, pod.uid).uid == pod.uid
    view = watched.watch.start()
    assert view.count == 5
    assert watched.watch.age() is not None
    lists = [one for one in watched.cluster.requests if one.resource == "pods" and "watch" not in one.query]
    assert len(lists) in (0, 3)


def test_a_watch_that_the_api_server_ends_goes_on_and_misses_nothing(watched: Watched) -> None:
    watched.cluster.pod("default/a")
    watched.wait_for(watched.has("a"))
    for name in ("b", "c"):
        before = watched.watches()
        watched.cluster.end_watches()
        watched.cluster.pod(f"default/{name}")
        watched.wait_for(watched.has(*"abc"[: "abc".index(name) + 1]))
        assert watched.watches() >= before


def test_a_lost_connection_is_taken_up_again(watched: Watched) -> None:
    watched.cluster.pod("default/a")
    watched.wait_for(watched.has("a"))
    watched.cluster.disconnect()
    watched.cluster.pod("default/b")
    watched.wait_for(watched.has("a", "b"))


def test_an_api_server_that_is_away_leaves_the_view_as_it_was(watched: Watched) -> None:
    alice = watched.cluster.pod("default/a", service_account="alice")
    watched.wait_for(watched.has("a"))
    before = restarts("connection")
    watched.cluster.fail("refuse")
    watched.cluster.pod("default/b")
    watched.pauses.wait_for(2)
    assert restarts("connection") >= before + 2
    assert watched.get("a", alice.uid).uid == alice.uid
    assert watched.has("a")()
    watched.cluster.heal()
    watched.wait_for(watched.has("a", "b"))


def test_changes_that_were_compacted_are_found_by_a_new_list(watched: Watched) -> None:
    alice = watched.cluster.pod("default/alice-pod")
    watched.wait_for(watched.has("alice-pod"))
    before = restarts("expired")
    watched.cluster.fail("refuse")
    alice.remove()
    watched.cluster.pod("default/b")
    watched.cluster.compact()
    watched.cluster.heal()
    watched.wait_for(watched.has("b"))
    assert restarts("expired") == before + 1
    assert alice.uid in watched.changed


def test_a_bookmark_makes_the_view_current(watched: Watched) -> None:
    watched.cluster.pod("default/a")
    watched.wait_for(watched.has("a"))
    watched.cluster.pod("default/b")
    watched.wait_for(watched.has("a", "b"))  # by the watch, which is open now
    view = watched.watch.start()
    before = view._confirmed[ALL_NAMESPACES]
    watched.cluster.bookmark()
    watched.wait_for(lambda: view._confirmed[ALL_NAMESPACES] > before)


def test_broken_json_leads_to_a_new_list(watched: Watched) -> None:
    watched.cluster.pod("default/a")
    watched.wait_for(watched.has("a"))
    before = restarts("malformed")

    def break_one(response: Any) -> Any:
        return response if restarts("malformed") > before else b'{"type": "ADDED", "object"\n'

    watched.cluster.mutate("pods", break_one)
    watched.cluster.end_watches()
    names = ["a"]
    while restarts("malformed") == before:
        assert len(names) < 20
        names.append(f"b{len(names)}")  # the watch that ends may still tell of the first ones, as they are
        watched.cluster.pod(f"default/{names[-1]}")
        watched.wait_for(watched.has(*names))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (500, "status"),
        (401, "unavailable"),
        (403, "unavailable"),
        ("hang", "connection"),
        ("cut", "connection"),
        ("html", "status"),
    ],
)
def test_faults_of_the_api_server_are_survived(make_watch: WatchFactory, fault: Any, reason: str) -> None:
    with Cluster(tls=False) as cluster:
        before = restarts(reason)
        cluster.fail(fault, path="/api/v1/pods")
        watched = make_watch(cluster, read_timeout=0.2)
        watched.watch.start()
        with pytest.raises(Unavailable, match="the pods have not been listed yet"):
            watched.watch.get(ALICE, "alice-pod", "uid", real_time.monotonic() + 0.01)
        watched.pauses.wait_for(1)
        assert restarts(reason) > before
        cluster.heal()
        cluster.pod("default/a")
        watched.wait_for(watched.has("a"))
        watched.watch.close()


def test_a_hung_api_server_is_noticed_by_its_silence(make_watch: WatchFactory) -> None:
    with Cluster(tls=False) as cluster:
        before = restarts("silent")
        watched = make_watch(cluster, read_timeout=0.1)
        cluster.pod("default/a")
        watched.wait_for(watched.has("a"))
        watched.pauses.wait_for(2)
        assert restarts("silent") >= before + 1
        watched.watch.close()


def test_a_pod_that_is_newer_than_the_view_is_read_live(cluster: Cluster, make_watch: WatchFactory) -> None:
    watched = make_watch(cluster, live=True)
    cluster.pod("default/a", service_account="alice")
    watched.wait_for(watched.has("a"))
    cluster.fail("hang", path="/api/v1/pods")
    cluster.disconnect()
    newer = cluster.pod("default/alice-pod", service_account="alice")
    assert watched.get("alice-pod", newer.uid).uid == newer.uid
    assert [one.name for one in cluster.requests if one.verb == "get" and one.name] == ["alice-pod"]
    assert watched.has("a")()


def test_a_pod_that_the_view_has_costs_no_call(cluster: Cluster, make_watch: WatchFactory) -> None:
    watched = make_watch(cluster, live=True)
    alice = cluster.pod("default/alice-pod", service_account="alice")
    watched.wait_for(watched.has("alice-pod"))
    for _ in range(3):
        watched.get("alice-pod", alice.uid)
    assert [one for one in cluster.requests if one.verb == "get" and one.resource == "pods"] == []


def test_named_namespaces_are_watched_with_a_role_in_each(cluster: Cluster, make_watch: WatchFactory) -> None:
    for namespace in ("shop", "bank"):
        cluster.grant("default/bob", verbs=["list", "watch"], resources=["pods"], namespace=namespace)
    watched = make_watch(cluster, namespaces=["shop", "bank"], kubeconfig=cluster.kubeconfig_for("default/bob"))
    for namespace in ("shop", "bank", "elsewhere"):
        cluster.pod(f"{namespace}/{namespace}-pod", service_account="alice")
    watched.wait_for(watched.has("shop-pod", "bank-pod"))
    assert sorted({one.namespace for one in cluster.requests if one.resource == "pods"}) == ["bank", "shop"]
    names = [one.name for one in threading.enumerate() if one.name.startswith("podproof-pods-")]
    assert sorted(names) == ["podproof-pods-0", "podproof-pods-1"]


def test_a_label_selector_watches_some_pods_only(cluster: Cluster, make_watch: WatchFactory) -> None:
    watched = make_watch(cluster, live=True, label_selector="app=alice")
    alice = cluster.pod("default/alice-pod", service_account="alice", labels={"app": "alice"})
    other = cluster.pod("default/other", service_account="alice")
    watched.wait_for(watched.has("alice-pod"))
    record = watched.watch.start().find("default", "alice-pod")
    assert record is not None
    assert record.labels == {"app": "alice"}
    alice.update(labels={})
    watched.wait_for(watched.has())
    assert alice.uid in watched.changed
    for pod in (alice, other):  # both live, which a live read says
        assert watched.get(pod.name, pod.uid).uid == pod.uid


def test_nothing_is_started_before_the_first_use(cluster: Cluster, make_watch: WatchFactory) -> None:
    watched = make_watch(cluster)
    assert watched.watch.age() is None
    assert cluster.requests == []
    assert watched.watch.start() is watched.watch.start()
    watched.wait_for(watched.has())
    assert sum(one.name.startswith("podproof-pods-") for one in threading.enumerate()) == 1


def test_close_ends_the_threads_and_the_next_use_begins_anew(cluster: Cluster, make_watch: WatchFactory) -> None:
    watched = make_watch(cluster)
    cluster.pod("default/a")
    watched.wait_for(watched.has("a"))
    first = watched.watch.start()
    watched.watch.close()
    watched.watch.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("podproof-pods-")]
    cluster.pod("default/b")
    watched.wait_for(watched.has("a", "b"))
    assert watched.watch.start() is not first


def test_close_does_not_wait_for_a_pause(cluster: Cluster, make_watch: WatchFactory) -> None:
    cluster.fail("refuse")
    pausing = threading.Event()

    def wait(closing: threading.Event, _: float) -> None:
        pausing.set()
        closing.wait(WAIT)

    watched = make_watch(cluster, wait=wait)
    watched.watch.start()
    assert pausing.wait(WAIT)
    watched.watch.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("podproof-pods-")]


def test_a_listener_may_close_the_watch(cluster: Cluster) -> None:
    closed = threading.Event()
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)}))

    def close(_: str) -> None:
        watch.close()
        closed.set()

    watch = PodWatch(client, listeners=[close])
    alice = cluster.pod("default/alice-pod", service_account="alice")
    watch.get(ALICE, "alice-pod", alice.uid, real_time.monotonic() + WAIT)
    thread = next(one for one in threading.enumerate() if one.name == "podproof-pods-0")
    alice.remove()
    assert closed.wait(WAIT)
    thread.join(WAIT)
    assert not thread.is_alive()
    client.close()


def test_two_threads_that_start_a_watch_start_it_once(cluster: Cluster, make_watch: WatchFactory) -> None:
    watched = make_watch(cluster)
    watches = watched.watch._watches.get()
    other = threading.Thread()

    class LockOfAnother(AbstractContextManager[None]):
        """Lets its user in when another thread has just started the watch."""

        def __enter__(self) -> None:
            watches._threads = [other]

        def __exit__(self, *_: object) -> None:
            pass

    watches._lock = LockOfAnother()  # type: ignore[assignment]
    watches.start()
    assert watches._threads == [other]
    watches._threads = []


@pytest.mark.trap(32)
@pytest.mark.trap(52)
def test_a_forked_child_starts_its_own(
    cluster: Cluster, make_watch: WatchFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = make_watch(cluster)
    cluster.pod("default/a")
    watched.wait_for(watched.has("a"))
    parent = watched.watch.start()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    child = watched.watch.start()
    assert child is not parent
    cluster.pod("default/b")
    watched.wait_for(watched.has("a", "b"))
    assert child.count == 2
    watched.watch.close()
    monkeypatch.undo()
    watched.wait_for(watched.has("a", "b"))
    assert watched.watch.start() is parent


FORKED = """
import os, sys, time
from podproof._apiserver.client import APIServerClient
from podproof._authentication.pod_watch import PodWatch
from podproof.identity import ServiceAccount
client = APIServerClient()
watch = PodWatch(client)
def found():
    return watch.get(ServiceAccount("default", "alice"), "alice-pod", sys.argv[1], time.monotonic() + 10).pod.uid
assert found() == sys.argv[1]
pid = os.fork()
if not pid:
    os._exit(found() == sys.argv[1] and watch.start().count == 1 and 7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert found() == sys.argv[1]
watch.close()
client.close()
"""


@pytest.mark.trap(32)
def test_parent_and_child_of_a_real_fork_each_have_a_view(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice")
    subprocess.run(
        [sys.executable, "-c", FORKED, alice.uid],
        env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig)},
        check=True,
        timeout=60,
    )
    assert sum("watch" in one.query for one in cluster.requests) == 2
