"""The view of the pods by itself: what it says about a token's pod, what it reports, and what it takes of memory."""

from __future__ import annotations

import gc
import json
import threading
import time as real_time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from podproof._authentication.pod_view import ALL_NAMESPACES, PodView
from podproof._authentication.pods import FoundPod, PodRecord, read_record
from podproof.errors import PodFinished, PodGone, ServiceAccountMismatch, Unavailable
from podproof.identity import Pod, ServiceAccount
from tests.support.fake_api import Clock, uid_of
from tests.support.pod_events import pod_json

ALICE = ServiceAccount("default", "alice", "account-uid")
UID = "uid-of-alice-pod"
LIMIT = 700
"""Bytes per pod."""


def record(**changes: object) -> PodRecord:
    return read_record(pod_json(**changes))  # type: ignore[arg-type]  # the arguments of pod_json


@dataclass
class Fallback:
    """A live read of each pod: one that there is, with a mark on it, or an exception."""

    result: Exception | None = None
    asked: list[str] = field(default_factory=list)

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> FoundPod:
        self.asked.append(uid)
        if self.result is not None:
            raise self.result
        return FoundPod(Pod(service_account.namespace, name, uid, node="read live"))

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> None:
        return None


@pytest.fixture
def changed() -> list[str]:
    return []


@pytest.fixture
def view(time: Clock, changed: list[str]) -> PodView:
    """Return a view of all namespaces that has Alice's pod."""
    view = PodView(listeners=[changed.append], monotonic=time, now=time)
    view.replace(ALL_NAMESPACES, [record()])
    return view


def get(view: PodView, uid: str = UID, name: str = "alice-pod", account: ServiceAccount = ALICE) -> Pod:
    return view.get(account, name, uid, 0).pod


def test_a_live_pod_is_returned_without_a_call(view: PodView) -> None:
    assert get(view) == Pod(
        "default", "alice-pod", UID, ("10.1.2.3",), "node1", host_network=False, node_addresses=("10.250.0.4",)
    )


@pytest.mark.trap(14)
def test_a_recreated_pod_of_the_same_name_is_pod_gone(view: PodView) -> None:
    with pytest.raises(PodGone, match="was recreated"):
        get(view, "another")


@pytest.mark.trap(15)
def test_a_pod_of_another_service_account_is_denied(view: PodView) -> None:
    with pytest.raises(ServiceAccountMismatch):
        get(view, account=ServiceAccount("default", "mallory"))


@pytest.mark.trap(17)
@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Unknown"])
def test_a_finished_pod_is_denied_without_a_call(time: Clock, phase: str) -> None:
    fallback = Fallback()
    view = PodView(fallback=fallback, monotonic=time)
    view.replace(ALL_NAMESPACES, [record(phase=phase)])
    with pytest.raises(PodFinished):
        get(view)
    assert fallback.asked == []


def test_a_pod_that_the_view_does_not_have_is_pod_gone_without_a_fallback(view: PodView) -> None:
    with pytest.raises(PodGone, match="the watch sees no pod default/bob-pod"):
        get(view, name="bob-pod")


def test_a_pod_whose_address_may_be_newer_than_the_view_is_read_live(time: Clock) -> None:
    fallback = Fallback()
    view = PodView(fallback=fallback, monotonic=time)
    view.replace(ALL_NAMESPACES, [record(addresses=())])
    assert get(view).node == "read live"
    view.put(ALL_NAMESPACES, record())
    assert get(view).addresses == ("10.1.2.3",)
    assert fallback.asked == [UID]


def test_a_pod_without_an_address_is_known_without_a_fallback(time: Clock) -> None:
    view = PodView(monotonic=time)
    view.replace(ALL_NAMESPACES, [record(addresses=())])
    assert get(view).addresses == ()


@pytest.mark.parametrize(("name", "uid"), [("bob-pod", UID), ("alice-pod", "newer")])
def test_a_pod_that_may_be_newer_than_the_view_is_read_live(time: Clock, name: str, uid: str) -> None:
    fallback = Fallback()
    view = PodView(fallback=fallback, monotonic=time)
    view.replace(ALL_NAMESPACES, [record()])
    assert get(view, uid, name).node == "read live"
    fallback.result = PodGone("gone")
    with pytest.raises(PodGone, match="gone"):
        get(view, uid, name)
    assert fallback.asked == [uid, uid]


def test_a_pod_whose_end_was_seen_is_denied_without_a_call(time: Clock) -> None:
    fallback = Fallback()
    view = PodView(fallback=fallback, monotonic=time)
    view.replace(ALL_NAMESPACES, [record(), record(name="bob-pod"), record(name="carol-pod")])
    view.remove(ALL_NAMESPACES, record())
    view.put(ALL_NAMESPACES, record(name="bob-pod", uid="new"))
    view.replace(ALL_NAMESPACES, [record(name="bob-pod", uid="new")])
    for name in ("alice-pod", "bob-pod", "carol-pod"):
        with pytest.raises(PodGone, match="was deleted, or recreated"):
            get(view, f"uid-of-{name}", name)
    assert fallback.asked == []


def test_the_last_deleted_pods_are_remembered_and_no_more(time: Clock) -> None:
    fallback = Fallback()
    view = PodView(fallback=fallback, ended=2, monotonic=time)
    names = ["a", "b", "c"]
    view.replace(ALL_NAMESPACES, [record(name=name) for name in names])
    for name in names:
        view.remove(ALL_NAMESPACES, record(name=name))
    assert get(view, "uid-of-a", "a").node == "read live"
    for name in ("b", "c"):
        with pytest.raises(PodGone):
            get(view, f"uid-of-{name}", name)


def test_a_pod_that_comes_back_with_its_uid_lives(view: PodView) -> None:
    view.remove(ALL_NAMESPACES, record())
    view.put(ALL_NAMESPACES, record())
    assert get(view).uid == UID


def test_with_a_selector_a_pod_that_leaves_the_watch_may_live(time: Clock, changed: list[str]) -> None:
    view = PodView(fallback=Fallback(), selective=True, listeners=[changed.append], monotonic=time)
    view.replace(ALL_NAMESPACES, [record()])
    view.remove(ALL_NAMESPACES, record())
    assert get(view).node == "read live"
    assert changed == [UID]


def test_a_pod_in_a_namespace_that_is_not_watched_is_read_live(time: Clock) -> None:
    view = PodView(namespaces=["shop"], fallback=Fallback(), monotonic=time)
    assert get(view).node == "read live"
    with pytest.raises(PodGone, match="the watch sees no pod"):
        get(PodView(namespaces=["shop"], monotonic=time))


def test_before_the_first_list_a_caller_waits_until_the_deadline(time: Clock) -> None:
    view = PodView(monotonic=time)
    with pytest.raises(Unavailable, match=r"^the pods have not been listed yet$"):
        view.get(ALICE, "alice-pod", UID, time() + 0.01)
    view.fail(ALL_NAMESPACES, "the API server forbids us")
    with pytest.raises(Unavailable, match="not been listed yet: the API server forbids us"):
        view.get(ALICE, "alice-pod", UID, time())


def test_a_caller_that_waits_goes_on_with_the_first_list() -> None:
    view = PodView()
    found: list[Pod] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        found.append(view.get(ALICE, "alice-pod", UID, real_time.monotonic() + 10).pod)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    view.replace(ALL_NAMESPACES, [record()])
    thread.join(10)
    assert [pod.uid for pod in found] == [UID]


def test_one_namespace_does_not_wait_for_the_list_of_another(time: Clock) -> None:
    view = PodView(namespaces=["default", "shop", "default"], monotonic=time)
    view.replace("default", [record()])
    assert get(view).uid == UID
    assert view.age() is None
    view.replace("shop", [record(namespace="shop")])
    assert (view.age(), view.count) == (0, 2)
    view.replace("shop", [])
    assert (get(view).uid, view.count) == (UID, 1)


def test_the_age_is_that_of_the_namespace_that_was_confirmed_first(time: Clock) -> None:
    view = PodView(namespaces=["default", "shop"], monotonic=time, now=time)
    view.replace("default", [])
    view.replace("shop", [])
    time.passes(10)
    view.confirm("shop")
    assert view.age() == 10
    assert REGISTRY.get_sample_value("podproof_pod_view_timestamp_seconds") == time() - 10
    view.confirm("default")
    assert view.age() == 0
    assert REGISTRY.get_sample_value("podproof_pod_view_timestamp_seconds") == time()


def test_each_sign_of_life_makes_the_view_current(view: PodView, time: Clock) -> None:
    signs: list[Callable[[], None]] = [
        lambda: view.put(ALL_NAMESPACES, record(name="bob-pod")),
        lambda: view.remove(ALL_NAMESPACES, record(name="bob-pod")),
        lambda: view.confirm(ALL_NAMESPACES),
        lambda: view.replace(ALL_NAMESPACES, []),
    ]
    for sign in signs:
        time.passes(5)
        assert view.age() == 5
        sign()
        assert view.age() == 0


def test_a_view_that_is_too_old_says_nothing(time: Clock) -> None:
    fallback = Fallback()
    without, view = PodView(monotonic=time), PodView(fallback=fallback, monotonic=time)
    for one in (without, view):
        one.replace(ALL_NAMESPACES, [record()])
    time.passes(180)
    assert get(without) == get(view)
    time.passes(1)
    assert get(view).node == "read live"
    without.fail(ALL_NAMESPACES, "status 500")
    with pytest.raises(Unavailable, match="older than 180 s: status 500"):
        get(without)
    without.confirm(ALL_NAMESPACES)
    assert get(without).uid == UID


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": "new"},
        {"account": "mallory"},
        {"phase": "Succeeded"},
        {"addresses": ["10.9.9.9"]},
        {"addresses": []},
        {"host_network": True},
        {"labels": {"app": "alice"}},
        {"owner": "web-1"},
    ],
)
@pytest.mark.parametrize("by_list", [False, True])
def test_what_matters_to_a_decision_is_reported(
    view: PodView, changed: list[str], changes: dict[str, object], by_list: bool
) -> None:
    after = record(**changes)
    view.replace(ALL_NAMESPACES, [after]) if by_list else view.put(ALL_NAMESPACES, after)
    assert changed == [UID]


@pytest.mark.parametrize("changes", [{}, {"node": "node2"}, {"phase": "Pending"}])
@pytest.mark.parametrize("by_list", [False, True])
def test_what_does_not_matter_is_not_reported(
    view: PodView, changed: list[str], changes: dict[str, object], by_list: bool
) -> None:
    after = record(**changes)
    view.replace(ALL_NAMESPACES, [after]) if by_list else view.put(ALL_NAMESPACES, after)
    view.put(ALL_NAMESPACES, record(name="bob-pod"))
    assert changed == []


def test_a_deleted_pod_is_reported_once(view: PodView, changed: list[str]) -> None:
    view.put(ALL_NAMESPACES, record(name="bob-pod"))
    view.remove(ALL_NAMESPACES, record())
    view.remove(ALL_NAMESPACES, record())
    view.remove(ALL_NAMESPACES, record(namespace="elsewhere"))
    assert (changed, view.count) == ([UID], 1)


def test_namespaces_that_have_no_pods_any_more_take_no_memory(view: PodView) -> None:
    for number in range(10):
        view.put(ALL_NAMESPACES, record(namespace=f"job-{number}"))
        view.remove(ALL_NAMESPACES, record(namespace=f"job-{number}"))
    assert [*view._pods] == ["default"]


def test_the_end_of_an_older_pod_leaves_the_newer_one_of_its_name(view: PodView, changed: list[str]) -> None:
    view.remove(ALL_NAMESPACES, record(uid="older"))
    assert (get(view).uid, changed) == (UID, [])


def test_pods_that_a_list_does_not_have_are_reported(view: PodView, changed: list[str]) -> None:
    view.put(ALL_NAMESPACES, record(name="bob-pod"))
    view.replace(ALL_NAMESPACES, [record(name="bob-pod")])
    assert changed == [UID]


def test_a_listener_that_fails_is_logged_and_the_others_are_called(
    time: Clock, changed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(uid: str) -> None:
        raise RuntimeError(uid)

    view = PodView(listeners=[fail, changed.append], monotonic=time)
    view.replace(ALL_NAMESPACES, [record()])
    view.remove(ALL_NAMESPACES, record())
    assert changed == [UID]
    assert "a listener to changes of pods has failed" in caplog.text


def test_a_listener_may_read_the_view(time: Clock) -> None:
    found: list[PodRecord | None] = []
    listeners: list[Callable[[str], None]] = []
    view = PodView(listeners=listeners, monotonic=time)
    listeners.append(lambda _: found.append(view.find("default", "alice-pod")))
    view.replace(ALL_NAMESPACES, [record()])
    view.remove(ALL_NAMESPACES, record())
    assert found == [None]


@pytest.mark.parametrize("missing", ["namespace", "name", "uid"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_pod_without_a_name_is_not_taken(view: PodView, missing: str, value: object) -> None:
    thing = pod_json()
    thing["metadata"][missing] = value
    for write in (view.put, view.remove):
        with pytest.raises(Unavailable, match="no namespace, name or UID"):
            write(ALL_NAMESPACES, read_record(thing))


def test_the_number_of_pods_is_a_metric(view: PodView) -> None:
    view.put(ALL_NAMESPACES, record(name="bob-pod"))
    assert REGISTRY.get_sample_value("podproof_pods") == view.count == 2
    view.remove(ALL_NAMESPACES, record())
    assert REGISTRY.get_sample_value("podproof_pods") == view.count == 1


def test_a_new_list_keeps_the_records_that_say_the_same(view: PodView) -> None:
    known = view.find("default", "alice-pod")
    assert view.share(record()) is known
    other = record(node="node2")
    assert view.share(other) is other


@pytest.mark.usefixtures("without_coverage")
@pytest.mark.parametrize("addresses", [("10.244.{}.{}",), ("10.244.{}.{}", "fd00:10:244:{:x}::{:x}")])
def test_a_pod_takes_at_most_700_bytes(addresses: tuple[str, ...]) -> None:
    number_of_pods = 10_000
    lines = [
        json.dumps(
            pod_json(
                f"frontend-deployment-{number:05}-7d4b9c6f5-x2x9k",
                uid_of(str(number)),
                namespace=f"namespace-{number % 100}",
                account=f"account-{number % 7}",
                node=f"ip-10-0-{number % 250}-17.eu-central-1.compute.internal",
                addresses=[text.format(number // 250, number % 250) for text in addresses],
            )
        )
        for number in range(number_of_pods)
    ]
    view = PodView()
    view.replace(ALL_NAMESPACES, [])
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for line in lines:
        view.put(ALL_NAMESPACES, read_record(json.loads(line)))
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert view.count == number_of_pods
    print(f"\n{(after - before) / number_of_pods:.0f} bytes per pod with {len(addresses)} addresses")
    assert 300 < (after - before) / number_of_pods <= LIMIT


@pytest.mark.parametrize(("age", "fresh"), [(100, True), (120, True), (121, False), (900, False)])
def test_what_an_old_view_has_is_last_known_and_read_again(time: Clock, *, age: float, fresh: bool) -> None:
    fallback = Fallback()
    view = PodView(fallback=fallback, max_age=120, max_outage=900, monotonic=time, now=time)
    view.replace(ALL_NAMESPACES, [record()])
    confirmed = time()
    time.passes(age)
    last = view.last_known(ALICE, "alice-pod", UID)
    assert last is not None
    assert last[1:] == (confirmed + 120, confirmed + 900)
    assert (get(view) == last.pod) is fresh
    assert fallback.asked == [UID] * (not fresh)


@pytest.mark.parametrize(("name", "uid"), [("alice-pod", "another"), ("bob-pod", UID)])
def test_of_a_pod_that_the_view_does_not_have_nothing_is_known(view: PodView, name: str, uid: str) -> None:
    assert view.last_known(ALICE, name, uid) is None


def test_a_pod_that_was_deleted_is_denied_by_what_is_known(view: PodView) -> None:
    view.remove(ALL_NAMESPACES, record())
    with pytest.raises(PodGone):
        view.last_known(ALICE, "alice-pod", UID)


def test_after_a_list_that_has_failed_pods_are_read_by_the_fallback_at_once() -> None:
    """Else an app that may not list pods would have each new caller wait for half of the timeout."""
    view = PodView(fallback=Fallback())
    threading.Timer(0.05, view.fail, (ALL_NAMESPACES, "the API server forbids us to list and watch pods")).start()
    begun = real_time.monotonic()
    assert view.get(ALICE, "alice-pod", UID, begun + 60).pod.node == "read live"
    assert real_time.monotonic() - begun < 20
    assert view.get(ALICE, "alice-pod", UID, begun + 60).pod.node == "read live"


def test_before_the_first_list_pods_are_read_by_the_fallback(time: Clock) -> None:
    fallback = Fallback()
    view = PodView(fallback=fallback, monotonic=time, now=time)
    assert get(view).node == "read live"
