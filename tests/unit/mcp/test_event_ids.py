from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof._mcp.event_ids import EventIds

IDS = EventIds(b"key")
EVENT = b"id: 7\r\nevent: message\r\ndata: {}\r\n\r\n"


def marked_id(event: bytes) -> str:
    return event.partition(b"\r\n")[0].removeprefix(b"id: ").decode()


def test_an_id_is_accepted_from_its_pod_in_its_session() -> None:
    marked = IDS.mark(EVENT, "uid", "session")
    assert marked.partition(b"\r\n")[2] == EVENT.partition(b"\r\n")[2]
    assert IDS.accept(marked_id(marked), "uid", "session") == "7"


@pytest.mark.parametrize(
    ("pod_uid", "session"), [("other", "session"), ("uid", "other"), ("", "session"), ("uid", ""), ("ui", "d session")]
)
def test_an_id_is_not_accepted_elsewhere(pod_uid: str, session: str) -> None:
    assert IDS.accept(marked_id(IDS.mark(EVENT, "uid", "session")), pod_uid, session) is None


def test_an_id_is_not_accepted_by_another_process() -> None:
    marked = marked_id(EventIds().mark(EVENT, "uid", "session"))
    assert EventIds().accept(marked, "uid", "session") is None


@given(st.text(st.characters(max_codepoint=255)))
def test_no_other_text_is_an_id(text: str) -> None:
    assert IDS.accept(text, "uid", "session") is None


@given(st.binary(max_size=40))
def test_an_event_without_an_id_stays_as_it_is(rest: bytes) -> None:
    event = b"event: message\r\n" + rest
    assert IDS.mark(event, "uid", "session") == event


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_each_id_of_a_store_comes_back(name: str) -> None:
    marked = IDS.mark(f"id: {name}\r\ndata: x\r\n\r\n".encode(), "uid", "session")
    assert IDS.accept(marked_id(marked), "uid", "session") == name
