from __future__ import annotations

import os
import threading
from itertools import count

import pytest

from podproof._cache.fork_local import ForkLocal


def test_a_value_is_made_once_and_when_it_is_first_asked_for() -> None:
    numbers = count()
    one = ForkLocal(lambda: next(numbers))
    assert next(numbers) == 0
    assert one.get() == one.get() == 1


@pytest.mark.trap(32)
def test_a_forked_child_makes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one = ForkLocal(object)
    parents = one.get()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    childs = one.get()
    assert childs is not parents
    assert one.get() is childs
    monkeypatch.undo()
    assert one.get() is parents


def test_two_threads_that_ask_first_get_the_same() -> None:
    both = threading.Barrier(2)

    def make() -> object:
        both.wait(10)
        return object()

    one = ForkLocal(make)
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(one.get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1] is one.get()


def test_a_value_that_is_popped_is_made_anew() -> None:
    one = ForkLocal(object)
    assert one.pop() is None
    first = one.get()
    assert one.pop() is first
    assert one.get() is not first


def test_a_value_is_dropped_but_not_the_one_that_another_thread_has_just_renewed() -> None:
    one = ForkLocal(object)
    stale = one.get()
    one.discard(stale)
    fresh = one.get()
    one.discard(stale)
    assert one.get() is fresh is not stale


@pytest.mark.trap(32)
def test_the_latest_value_is_there_to_look_at_and_a_forked_child_still_makes_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = ForkLocal(object)
    assert one.latest is None
    parents = one.get()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert one.latest is parents
    childs = one.get()
    assert childs is not parents
    assert one.latest is childs
    one.pop()
    assert one.latest is None
