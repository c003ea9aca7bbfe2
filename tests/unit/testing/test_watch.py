from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest
import requests

from podproof.testing import Cluster
from podproof.testing._emulator import watch
from tests.integration.contract import Side

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def events(cluster: Cluster, side: Side) -> Iterator[Any]:
    """Return a function that opens a watch of the pods in `default` and returns its events as they come."""
    open_now = []

    def opened(query: str = "") -> Iterator[tuple[str, Any]]:
        url = f"{cluster.url}/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=30{query}"
        response = side.way.admin.get(url, stream=True, timeout=10)
        open_now.append(response)
        for line in response.iter_lines():
            event = json.loads(line)
            yield event["type"], event["object"]

    yield opened
    for response in open_now:
        response.close()


def names(events: Iterator[tuple[str, Any]], count: int) -> list[tuple[str, str]]:
    return [(kind, thing["metadata"]["name"]) for kind, thing in (next(events) for _ in range(count))]


def test_a_watch_sends_changes_as_they_happen(cluster: Cluster, events: Any) -> None:
    alice = cluster.pod("default/alice")
    received = events()
    assert names(received, 1) == [("ADDED", "alice")]
    alice.update(phase="Succeeded")
    cluster.pod("elsewhere/carol")
    cluster.pod("default/bob").delete()
    alice.remove()
    assert names(received, 5) == [
        ("MODIFIED", "alice"),
        ("ADDED", "bob"),
        ("MODIFIED", "bob"),
        ("MODIFIED", "bob"),
        ("DELETED", "alice"),
    ]


def test_a_watch_continues_from_a_resource_version(cluster: Cluster, side: Side, events: Any) -> None:
    cluster.pod("default/alice")
    version = side.ask("GET", "/api/v1/pods")["content"]["metadata"]["resourceVersion"]
    cluster.pod("default/bob")
    assert names(events(f"&resourceVersion={version}"), 1) == [("ADDED", "bob")]


def test_a_bookmark_is_sent_to_watches_that_accept_bookmarks(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    without, accepting = events(), events("&allowWatchBookmarks=true")
    assert names(without, 1) == names(accepting, 1) == [("ADDED", "alice")]
    cluster.bookmark()
    kind, thing = next(accepting)
    assert (kind, thing["kind"]) == ("BOOKMARK", "Pod")
    cluster.pod("default/bob")
    assert names(without, 2) == names(accepting, 2)
    assert int(thing["metadata"]["resourceVersion"]) > 0


def test_a_bookmark_is_sent_before_the_end_after_a_change(
    cluster: Cluster, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BOOKMARK_BEFORE_END", 0.05)
    version = side.ask("GET", "/api/v1/pods")["content"]["metadata"]["resourceVersion"]
    cluster.pod("elsewhere/carol")
    path = f"/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=0.2&allowWatchBookmarks=1&resourceVersion={version}"
    received = side.ask("GET", path)["content"]
    assert [event["type"] for event in received] == ["BOOKMARK"]
    version = received[0]["object"]["metadata"]["resourceVersion"]
    path = path.rpartition("=")[0] + f"={version}"
    assert side.ask("GET", path)["content"] == []


def test_a_watch_from_a_compacted_version_gets_an_error_event(cluster: Cluster, side: Side) -> None:
    version = side.ask("GET", "/api/v1/pods")["content"]["metadata"]["resourceVersion"]
    cluster.pod("default/alice")
    cluster.compact()
    response = side.ask("GET", f"/api/v1/pods?watch=1&resourceVersion={version}")
    assert response["status"] == 200
    assert [(event["type"], event["object"]["code"]) for event in response["content"]] == [("ERROR", 410)]


def test_a_list_from_a_compacted_version_gets_a_410(cluster: Cluster, side: Side) -> None:
    for name in ("a", "b"):
        cluster.pod(f"default/{name}")
    page = side.ask("GET", "/api/v1/pods?limit=1")["content"]["metadata"]
    exact = f"/api/v1/pods?resourceVersionMatch=Exact&resourceVersion={page['resourceVersion']}"
    assert side.ask("GET", exact)["status"] == 200
    cluster.compact()
    for path in (exact, f"/api/v1/pods?limit=1&continue={page['continue']}"):
        response = side.ask("GET", path)
        assert (response["status"], response["content"]["reason"]) == (410, "Expired")
    assert side.ask("GET", "/api/v1/pods?continue=junk")["status"] == 400


def test_an_open_watch_continues_after_a_compaction(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    received = events()
    next(received)
    cluster.compact()
    cluster.pod("default/bob")
    assert names(received, 1) == [("ADDED", "bob")]


def test_open_watches_can_be_ended(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    received = events()
    next(received)
    cluster.end_watches()
    assert list(received) == []


def test_open_connections_can_be_closed(cluster: Cluster, side: Side, events: Any) -> None:
    cluster.pod("default/alice")
    received = events()
    next(received)
    cluster.disconnect()
    with pytest.raises(requests.RequestException):
        next(received)
    assert side.ask("GET", "/readyz")["status"] == 200


def test_stop_ends_a_watch(side: Side, cluster: Cluster) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(side.ask, "GET", "/api/v1/pods?watch=true")
        while not cluster.count("pods"):
            pass
        cluster.stop()
        assert waiting.exception(timeout=5) is not None or waiting.result()["content"] == []


STREAMED_LIST = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion="


def test_a_streamed_list_ends_with_a_bookmark_that_says_so(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    received = events(f"&allowWatchBookmarks=true&{STREAMED_LIST}")
    assert names(received, 1) == [("ADDED", "alice")]
    kind, thing = next(received)
    assert (kind, thing["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})
    cluster.pod("default/bob")
    assert names(received, 1) == [("ADDED", "bob")]


def test_a_streamed_list_has_no_bookmark_unless_bookmarks_are_accepted(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    received = events(f"&{STREAMED_LIST}")
    assert names(received, 1) == [("ADDED", "alice")]
    cluster.pod("default/bob")
    assert names(received, 1) == [("ADDED", "bob")]


def test_a_watch_without_initial_events_begins_now(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    received = events("&allowWatchBookmarks=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, received)
        while not wait([first], 0.01).done:  # until the watch is open, it gets no bookmark
            cluster.bookmark()
        kind, thing = first.result()
    assert (kind, "annotations" in thing["metadata"]) == ("BOOKMARK", False)


@pytest.mark.parametrize(
    ("version", "query", "field", "why"),
    [
        ("1.26", STREAMED_LIST, "resourceVersionMatch", "resourceVersionMatch is forbidden for watch"),
        (
            "1.33",
            STREAMED_LIST,
            "sendInitialEvents",
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        (
            "1.34",
            "resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            "1.34",
            "sendInitialEvents=true",
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
    ],
)
def test_an_api_server_without_streamed_lists_says_so(version: str, query: str, field: str, why: str) -> None:
    with Cluster(tls=False, version=version) as cluster:
        admin = json.loads(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
        headers = {"Authorization": f"Bearer {admin}"}
        response = requests.get(f"{cluster.url}/api/v1/pods?watch=1&{query}", headers=headers, timeout=10)
    assert response.status_code == 422
    assert response.json()["message"] == f'ListOptions.meta.k8s.io "" is invalid: {field}: Forbidden: {why}'
    assert response.json()["details"]["causes"] == [
        {"reason": "FieldValueForbidden", "message": f"Forbidden: {why}", "field": field}
    ]
