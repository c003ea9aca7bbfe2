from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
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
    """Give a function that opens a watch of the pods in `default` and returns its events as they come."""
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


def test_what_happens_is_told_as_it_happens(cluster: Cluster, events: Any) -> None:
    alice = cluster.pod("default/alice")
    told = events()
    assert names(told, 1) == [("ADDED", "alice")]
    alice.update(phase="Succeeded")
    cluster.pod("elsewhere/carol")
    cluster.pod("default/bob").delete()
    alice.remove()
    assert names(told, 5) == [
        ("MODIFIED", "alice"),
        ("ADDED", "bob"),
        ("MODIFIED", "bob"),
        ("MODIFIED", "bob"),
        ("DELETED", "alice"),
    ]


def test_a_watch_goes_on_from_a_version(cluster: Cluster, side: Side, events: Any) -> None:
    cluster.pod("default/alice")
    version = side.ask("GET", "/api/v1/pods")["content"]["metadata"]["resourceVersion"]
    cluster.pod("default/bob")
    assert names(events(f"&resourceVersion={version}"), 1) == [("ADDED", "bob")]


def test_a_bookmark_is_for_those_who_asked(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    deaf, hearing = events(), events("&allowWatchBookmarks=true")
    assert names(deaf, 1) == names(hearing, 1) == [("ADDED", "alice")]
    cluster.bookmark()
    kind, thing = next(hearing)
    assert (kind, thing["kind"]) == ("BOOKMARK", "Pod")
    cluster.pod("default/bob")
    assert names(deaf, 2) == names(hearing, 2)
    assert int(thing["metadata"]["resourceVersion"]) > 0


def test_a_bookmark_comes_before_the_end_when_something_happened(
    cluster: Cluster, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BOOKMARK_BEFORE_END", 0.05)
    version = side.ask("GET", "/api/v1/pods")["content"]["metadata"]["resourceVersion"]
    cluster.pod("elsewhere/carol")
    path = f"/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=0.2&allowWatchBookmarks=1&resourceVersion={version}"
    told = side.ask("GET", path)["content"]
    assert [event["type"] for event in told] == ["BOOKMARK"]
    version = told[0]["object"]["metadata"]["resourceVersion"]
    path = path.rpartition("=")[0] + f"={version}"
    assert side.ask("GET", path)["content"] == []


def test_a_forgotten_version_is_an_error_event_in_a_watch(cluster: Cluster, side: Side) -> None:
    version = side.ask("GET", "/api/v1/pods")["content"]["metadata"]["resourceVersion"]
    cluster.pod("default/alice")
    cluster.compact()
    answer = side.ask("GET", f"/api/v1/pods?watch=1&resourceVersion={version}")
    assert answer["status"] == 200
    assert [(event["type"], event["object"]["code"]) for event in answer["content"]] == [("ERROR", 410)]


def test_a_forgotten_version_is_a_410_for_a_list(cluster: Cluster, side: Side) -> None:
    for name in ("a", "b"):
        cluster.pod(f"default/{name}")
    page = side.ask("GET", "/api/v1/pods?limit=1")["content"]["metadata"]
    exact = f"/api/v1/pods?resourceVersionMatch=Exact&resourceVersion={page['resourceVersion']}"
    assert side.ask("GET", exact)["status"] == 200
    cluster.compact()
    for path in (exact, f"/api/v1/pods?limit=1&continue={page['continue']}"):
        answer = side.ask("GET", path)
        assert (answer["status"], answer["content"]["reason"]) == (410, "Expired")
    assert side.ask("GET", "/api/v1/pods?continue=junk")["status"] == 400


def test_a_watch_that_is_open_goes_on_when_the_past_is_forgotten(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    told = events()
    next(told)
    cluster.compact()
    cluster.pod("default/bob")
    assert names(told, 1) == [("ADDED", "bob")]


def test_open_watches_can_be_ended(cluster: Cluster, events: Any) -> None:
    cluster.pod("default/alice")
    told = events()
    next(told)
    cluster.end_watches()
    assert list(told) == []


def test_open_connections_can_be_closed(cluster: Cluster, side: Side, events: Any) -> None:
    cluster.pod("default/alice")
    told = events()
    next(told)
    cluster.disconnect()
    with pytest.raises(requests.RequestException):
        next(told)
    assert side.ask("GET", "/readyz")["status"] == 200


def test_stopping_ends_a_watch(side: Side, cluster: Cluster) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(side.ask, "GET", "/api/v1/pods?watch=true")
        while not cluster.count("pods"):
            pass
        cluster.stop()
        assert waiting.exception(timeout=5) is not None or waiting.result()["content"] == []
