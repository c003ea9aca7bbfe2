from __future__ import annotations

import os
import threading
from itertools import count

import pytest

from podproof._cache.fork_local import ForkLocal


def test_a_value_is_made_once_at_its_first_use() -> None:
    numbers = count()
    local = ForkLocal(lambda: next(numbers))
    assert next(numbers) == 0
    assert local.get() == local.get() == 1


@pytest.mark.trap(32)
def test_a_forked_child_makes_its_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    local = ForkLocal(object)
    parent_value = local.get()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    child_value = local.get()
    assert child_value is not parent_value
    assert local.get() is child_value
    monkeypatch.undo()
    assert local.get() is parent_value


def test_two_threads_that_come_first_get_the_same_value() -> None:
    both = threading.Barrier(2)

    def make() -> object:
        both.wait(10)
        return object()

    local = ForkLocal(make)
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(local.get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1] is local.get()


def test_a_popped_value_is_made_again() -> None:
    local = ForkLocal(object)
    assert local.pop() is None
    first = local.get()
    assert local.pop() is first
    assert local.get() is not first


def test_discard_removes_a_stale_value_and_keeps_one_that_another_thread_has_made_since() -> None:
    local = ForkLocal(object)
    stale = local.get()
    local.discard(stale)
    fresh = local.get()
    local.discard(stale)
    assert local.get() is fresh is not stale


@pytest.mark.trap(32)
def test_in_a_forked_child_latest_is_the_parents_value_until_the_child_makes_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = ForkLocal(object)
    assert local.latest is None
    parent_value = local.get()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert local.latest is parent_value
    child_value = local.get()
    assert child_value is not parent_value
    assert local.latest is child_value
    local.pop()
    assert local.latest is None
