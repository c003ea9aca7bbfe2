from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from podproof._cache.review_threads import ReviewThreads
from podproof._cache.single_flight import SingleFlight
from podproof.errors import Overloaded, Unavailable
from tests.support.fake_api import Clock

SECONDS = 10  # that a test waits at most for another thread


@pytest.fixture
def threads() -> Iterator[ReviewThreads]:
    threads = ReviewThreads(ThreadPoolExecutor(2), max_pending=60)
    yield threads
    threads.shutdown()


@pytest.fixture
def single_flight(threads: ReviewThreads, time: Clock) -> SingleFlight[str, str]:
    return SingleFlight("test", threads, monotonic=time)


@pytest.fixture
def response() -> Iterator[threading.Event]:
    """Give what the calls of a test wait for; it is set at the end whatever happens."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.trap(27)
def test_concurrent_submits_of_one_key_share_one_call(
    single_flight: SingleFlight[str, str], response: threading.Event
) -> None:
    calls: list[str] = []

    def call() -> str:
        response.wait(SECONDS)
        calls.append("a")
        return "value"

    shared = [single_flight.submit("a", call) for _ in range(50)]
    assert single_flight.submit("b", lambda: "another").result(SECONDS) == "another"
    response.set()
    assert {future.result(SECONDS) for future in shared} == {"value"}
    assert calls == ["a"]


def test_a_call_that_is_done_is_not_shared(single_flight: SingleFlight[str, str]) -> None:
    assert single_flight.submit("a", lambda: "first").result(SECONDS) == "first"
    done = threading.Event()
    single_flight.submit("b", lambda: "other").add_done_callback(lambda _: done.set())
    assert done.wait(SECONDS)
    assert single_flight.submit("a", lambda: "second").result(SECONDS) == "second"


def test_a_call_past_its_deadline_is_not_shared(
    single_flight: SingleFlight[str, str], response: threading.Event, time: Clock
) -> None:
    def late() -> str:
        response.wait(SECONDS)
        return "late"

    first = single_flight.submit("a", late, time() + 5)
    assert single_flight.submit("a", lambda: "in time", time() + 5) is first
    time.passes(5)
    second = single_flight.submit("a", lambda: "in time", time() + 5)
    assert second.result(SECONDS) == "in time"
    third = single_flight.submit("a", late, time() + 5)
    response.set()
    assert (first.result(SECONDS), third.result(SECONDS)) == ("late", "late")


def test_a_call_that_is_done_and_not_yet_removed_is_not_shared(
    single_flight: SingleFlight[str, str], response: threading.Event
) -> None:
    first = single_flight.submit("a", lambda: str(response.wait(SECONDS)))
    again: list[Future[str]] = []
    done = threading.Event()

    def submit_again(_: Future[str]) -> None:
        again.append(single_flight.submit("a", lambda: "again"))
        done.set()

    # A future's waiters are woken before its callbacks run: this one goes before the one that removes the call.
    first._done_callbacks.insert(0, submit_again)  # type: ignore[attr-defined]
    response.set()
    assert done.wait(SECONDS)
    assert again[0].result(SECONDS) == "again"


@pytest.mark.trap(29)
def test_a_bounded_number_of_calls_is_pending(threads: ReviewThreads, response: threading.Event) -> None:
    running = most = 0
    counting, started = threading.Lock(), threading.Semaphore(0)

    def call() -> None:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        started.release()
        response.wait(SECONDS)
        with counting:
            running -= 1

    single_flight: SingleFlight[int, None] = SingleFlight("test", threads)
    pending = [single_flight.submit(number, call) for number in range(30)]
    with pytest.raises(
        Overloaded, match="30 reviews for all callers are pending already, and 30 of 60 places are left"
    ):
        single_flight.submit(30, call)
    assert single_flight.submit(0, call) is pending[0]
    assert started.acquire(timeout=SECONDS)
    assert started.acquire(timeout=SECONDS)
    response.set()
    for future in pending:
        future.result(SECONDS)
    single_flight.submit(30, call).result(SECONDS)
    assert most == 2


def test_after_shutdown_no_call_is_started(single_flight: SingleFlight[str, str], threads: ReviewThreads) -> None:
    threads.shutdown()
    for _ in range(2):
        with pytest.raises(Unavailable, match="shutting down"):
            single_flight.submit("a", lambda: "value")
