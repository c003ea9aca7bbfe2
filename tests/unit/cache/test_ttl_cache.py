from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

import pytest

from podproof._cache.single_flight import MAX_WAITING_PER_THREAD, SingleFlight
from podproof._cache.ttl_cache import TTLCache, token_key
from podproof.errors import Overloaded, Unavailable
from tests.support.fake_api import Clock

SECONDS = 10  # that a test waits at the most for another thread


@pytest.fixture
def flights() -> Iterator[SingleFlight[str, str]]:
    with closing(SingleFlight[str, str]("some", 2)) as made:
        yield made


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Give what flights wait for; opened at the end whatever happens."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.trap(33)
def test_a_token_is_remembered_by_its_hash() -> None:
    assert token_key("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_value_is_remembered_until_its_time_is_up(time: Clock) -> None:
    memory: TTLCache[str, str] = TTLCache("some", 10, time)
    memory.put("a", "value", 5)
    time.passes(4.9)
    assert memory.get("a") == "value"
    time.passes(0.1)
    assert memory.get("a") is None
    assert memory.get("b") is None


def test_a_newer_value_and_its_time_take_the_place_of_an_older(time: Clock) -> None:
    memory: TTLCache[str, str] = TTLCache("some", 10, time)
    memory.put("a", "old", 5)
    memory.put("a", "new", 50)
    time.passes(20)
    assert memory.get("a") == "new"
    assert len(memory) == 1


def test_a_value_can_be_forgotten(time: Clock) -> None:
    memory: TTLCache[str, str] = TTLCache("some", 10, time)
    memory.put("a", "value", 5)
    memory.forget("a")
    memory.forget("a")
    assert memory.get("a") is None


@pytest.mark.trap(28)
def test_the_oldest_is_forgotten_for_the_newest(time: Clock) -> None:
    memory: TTLCache[int, int] = TTLCache("some", 3, time)
    for number in range(100):
        memory.put(number, number, 60)
    assert len(memory) == 3
    assert [number for number in range(100) if memory.get(number) is not None] == [97, 98, 99]


def test_a_value_forgotten_while_it_is_read_is_no_error(time: Clock) -> None:
    memory: TTLCache[str, str] = TTLCache("some", 1, time)

    class Contested(str):  # noqa: SLOT000  it counts
        """A key that another thread pushes out between its first lookup and a second."""

        lookups = 0

        def __hash__(self) -> int:
            self.lookups += 1
            if self.lookups == 2:
                memory.put("newer", "value", 60)
            return super().__hash__()

    memory.put("a", "value", 60)
    assert memory.get(Contested("a")) in ("value", None)


@pytest.mark.trap(27)
def test_all_who_ask_for_the_same_at_the_same_time_share_one_flight(
    flights: SingleFlight[str, str], gate: threading.Event
) -> None:
    flown: list[str] = []

    def work() -> str:
        gate.wait(SECONDS)
        flown.append("a")
        return "value"

    joined = [flights.join("a", work) for _ in range(50)]
    other = flights.join("b", lambda: "another")
    assert other.result(SECONDS) == "another"
    gate.set()
    assert {flight.result(SECONDS) for flight in joined} == {"value"}
    assert flown == ["a"]


def test_who_asks_after_a_flight_has_landed_starts_another(flights: SingleFlight[str, str]) -> None:
    assert flights.join("a", lambda: "first").result(SECONDS) == "first"
    landed = threading.Event()
    flights.join("b", lambda: "other").add_done_callback(lambda _: landed.set())
    assert landed.wait(SECONDS)
    assert flights.join("a", lambda: "second").result(SECONDS) == "second"


def test_a_flight_past_its_deadline_is_not_joined(gate: threading.Event, time: Clock) -> None:
    def late() -> str:
        gate.wait(SECONDS)
        return "late"

    with closing(SingleFlight[str, str]("some", 2, time)) as flights:
        first = flights.join("a", late, time() + 5)
        assert flights.join("a", lambda: "in time", time() + 5) is first
        time.passes(5)
        second = flights.join("a", lambda: "in time", time() + 5)
        assert second.result(SECONDS) == "in time"
        third = flights.join("a", late, time() + 5)
        gate.set()
        assert (first.result(SECONDS), third.result(SECONDS)) == ("late", "late")


def test_a_flight_that_is_about_to_land_is_not_joined(flights: SingleFlight[str, str], gate: threading.Event) -> None:
    first = flights.join("a", lambda: str(gate.wait(SECONDS)))
    again: list[Future[str]] = []
    landed = threading.Event()

    def ask_again(_: Future[str]) -> None:
        again.append(flights.join("a", lambda: "again"))
        landed.set()

    # A future's waiters are woken before its callbacks run: ours goes before the one that clears the flight away.
    first._done_callbacks.insert(0, ask_again)  # type: ignore[attr-defined]
    gate.set()
    assert landed.wait(SECONDS)
    assert again[0].result(SECONDS) == "again"


@pytest.mark.trap(29)
def test_so_many_fly_at_once_and_so_many_wait_and_no_more(gate: threading.Event) -> None:
    aloft = most = 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal aloft, most
        with counting:
            aloft += 1
            most = max(most, aloft)
        gate.wait(SECONDS)
        with counting:
            aloft -= 1

    with closing(SingleFlight[int, None]("some", 3)) as flights:
        room = 3 * (1 + MAX_WAITING_PER_THREAD)
        joined = [flights.join(number, work) for number in range(room)]
        with pytest.raises(Overloaded, match=f"{room} questions"):
            flights.join(room, work)
        assert flights.join(0, work) is joined[0]
        gate.set()
        for flight in joined:
            flight.result(SECONDS)
        flights.join(room, work).result(SECONDS)
    assert most == 3


def test_what_waits_is_still_flown_when_the_end_has_come(gate: threading.Event) -> None:
    flights: SingleFlight[int, int] = SingleFlight("some", 1)
    joined = [flights.join(number, lambda: int(gate.wait(SECONDS))) for number in range(5)]
    closer = threading.Thread(target=flights.close)
    closer.start()
    gate.set()
    closer.join(SECONDS)
    assert [flight.result(0) for flight in joined] == [1] * 5


def test_after_the_end_nothing_takes_off(flights: SingleFlight[str, str]) -> None:
    flights.close()
    for _ in range(2):
        with pytest.raises(Unavailable, match="is ending"):
            flights.join("a", lambda: "value")


def test_no_thread_is_left_after_the_end(gate: threading.Event) -> None:
    before = threading.active_count()
    flights: SingleFlight[int, bool] = SingleFlight("some", 4)
    for number in range(4):
        flights.join(number, lambda: gate.wait(SECONDS))
    assert threading.active_count() == before + 4
    gate.set()
    flights.close()
    assert threading.active_count() == before
