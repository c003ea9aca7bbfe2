"""The thread that ends calls when the tokens of their callers expire."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

import pytest

from podproof.grpc._token_ends import TokenEnds

SOON = 0.02


@pytest.fixture
def ended() -> SimpleQueue[str]:
    return SimpleQueue()


def thread_of(ends: TokenEnds) -> threading.Thread:
    assert ends._thread is not None
    return ends._thread


def test_what_is_due_is_ended_in_order(ended: SimpleQueue[str]) -> None:
    ends, now = TokenEnds(), time.monotonic()
    ends.add(now + 2 * SOON, lambda: ended.put("second"))
    ends.add(now + SOON, lambda: ended.put("first"))
    ends.add(now + 2 * SOON, lambda: ended.put("second"))
    assert [ended.get(timeout=10) for _ in range(3)] == ["first", "second", "second"]


def test_what_is_discarded_is_not_ended(ended: SimpleQueue[str]) -> None:
    ends, now = TokenEnds(), time.monotonic()

    def first() -> None:
        ended.put("first")

    def other() -> None:
        ended.put("other")

    ends.add(now + SOON, first)
    ends.add(now + SOON, other)
    ends.discard(now + SOON, first)
    ends.add(now + 1000, first)
    ends.discard(now + 1000, first)
    ends.discard(now + 1000, first)
    assert ended.get(timeout=10) == "other"
    assert ended.empty()


def test_an_end_that_fails_does_not_keep_others_from_theirs(
    ended: SimpleQueue[str], caplog: pytest.LogCaptureFixture
) -> None:
    ends, now = TokenEnds(), time.monotonic()

    def fail() -> None:
        raise RuntimeError("a token")

    ends.add(now + SOON, fail)
    ends.add(now + 2 * SOON, lambda: ended.put("other"))
    assert ended.get(timeout=10) == "other"
    assert "a call could not be ended with its caller's token: RuntimeError" in caplog.text
    assert "a token" not in caplog.messages[0].replace("caller's token", "")


def test_the_thread_ends_where_there_is_nothing_to_end_and_starts_again(ended: SimpleQueue[str]) -> None:
    ends = TokenEnds(idle=SOON)
    ends.add(time.monotonic(), lambda: ended.put("first"))
    assert ended.get(timeout=10) == "first"
    thread = ends._thread
    if thread is not None:
        thread.join(10)
        assert not thread.is_alive()
    ends.add(time.monotonic(), lambda: ended.put("second"))
    assert ended.get(timeout=10) == "second"
