from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import pytest

from podproof._cache.review_threads import ReviewThreads
from podproof.errors import Overloaded


class HeldExecutor(Executor):
    """Runs what it is given when a test says so, in order."""

    def __init__(self) -> None:
        self.held: list[Callable[[], object]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.held.append(partial(fn, *args, **kwargs))
        return Future()

    def run(self) -> None:
        while self.held:
            self.held.pop(0)()


@pytest.fixture
def executor() -> HeldExecutor:
    return HeldExecutor()


def fill(threads: ReviewThreads, peer: str) -> int:
    """Submit calls of a peer until one is denied; return how many were not."""
    for count in range(1000):
        try:
            threads.submit(peer, lambda: None)
        except Overloaded:
            return count
    raise AssertionError("no call was denied")


@pytest.mark.trap(58)
@pytest.mark.parametrize("floods", range(1, 12))
def test_however_many_peers_flood_as_many_places_are_left_as_the_least_of_them_has(
    executor: HeldExecutor, floods: int
) -> None:
    threads = ReviewThreads(executor, max_pending=512)
    shares = [fill(threads, f"10.0.0.{number}") for number in range(floods)]
    assert shares[0] == 256
    assert shares == sorted(shares, reverse=True)
    for number in range(512 - sum(shares)):  # each a peer of its own: none is denied before the last place is taken
        threads.submit(f"10.1.0.{number}", lambda: None)
    with pytest.raises(
        Overloaded, match=r"0 reviews for 10\.2\.0\.0 are pending already, and 0 of 512 places are left"
    ):
        threads.submit("10.2.0.0", lambda: None)
    executor.run()
    assert fill(threads, "10.2.0.0") == 256


@pytest.mark.trap(58)
def test_peers_take_turns(executor: HeldExecutor) -> None:
    threads = ReviewThreads(executor, max_pending=100)
    ran: list[str] = []
    for call in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        threads.submit(call[0], partial(ran.append, call))
    executor.run()
    assert ran == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_a_place_is_free_again_when_the_future_is_done_also_after_an_error(executor: HeldExecutor) -> None:
    threads = ReviewThreads(executor, max_pending=2)
    again: list[Future[object]] = []
    for call in (lambda: "value", lambda: int("x")):
        future: Future[object] = threads.submit("a", call)
        with pytest.raises(Overloaded):
            threads.submit("a", call)
        future.add_done_callback(lambda _: again.append(threads.submit("a", lambda: "again")))
        executor.run()
        assert again.pop().result(0) == "again"
    with pytest.raises(ValueError, match="invalid literal"):
        future.result(0)
