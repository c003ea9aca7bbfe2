from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from benchmarks import day, fakes
from benchmarks.load import Load, LoadRequest
from benchmarks.repeats import Repeats, interleaved
from benchmarks.report import Amount, Row, as_json, table
from podproof._authentication.claims import check_claims
from podproof._token.jwt import read_claims
from podproof.options import Options


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount(0.0000015, "s"), "1.5 µs"),
        (Amount(0.00123, "s"), "1.23 ms"),
        (Amount(2, "s"), "2 s"),
        (Amount(700, "B"), "700 B"),
        (Amount(1536, "B"), "1.5 KB"),
        (Amount(82 * 1024**2, "B"), "82 MB"),
        (Amount(3_456_000), "3,456,000"),
    ],
)
def test_an_amount_is_shown_in_the_size_that_reads_well(amount: Amount, text: str) -> None:
    assert str(amount) == text


def test_each_round_begins_with_another_competitor() -> None:
    turns: list[str] = []

    def run(name: str) -> float:
        turns.append(name)
        return len(turns)

    repeats = interleaved({name: partial(run, name) for name in "abc"}, 4)
    assert "".join(turns) == "abcbcacababc"
    assert repeats.taken["a"] == [1, 6, 8, 10]


def test_a_ratio_is_the_median_of_each_rounds_own() -> None:
    # A machine that is ten times slower in one round is so for both.
    repeats = Repeats({"ours": [2, 20, 3], "theirs": [1, 10, 1]})
    assert repeats.median("ours") == 3
    assert repeats.ratio("ours", "theirs") == 2


def test_the_table_is_aligned_and_tells_what_is_met_what_is_missed_and_what_was_not_run() -> None:
    rows = [
        Row("short", Amount(1), "another", Amount(2), 0.5, "≤ 1x", met=True),
        Row("a longer one", Amount(3), goal="≤ 1", met=False, why="for a reason"),
        Row("left out", None, why="not run"),
    ]
    lines = table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["met", "missed: for a reason", "not run"]
    assert "0.50x" in lines[2]


def test_in_json_numbers_are_as_measured() -> None:
    told = as_json(Row("what", Amount(0.0015, "s"), "another", Amount(0.001, "s"), 1.5, "≤ 1x", met=False))
    assert (told["podproof"], told["there"], told["unit"], told["ratio"], told["met"]) == (
        0.0015,
        0.001,
        "s",
        1.5,
        False,
    )


def test_a_made_up_token_is_read_as_a_real_one_and_each_is_another() -> None:
    tokens = fakes.Tokens()
    one, other = tokens.make(issued_at=1000), tokens.make(issued_at=1000)
    assert one != other
    assert 1000 < len(one) < 1500
    assert check_claims(read_claims(one), audiences=["bob"], issuers=[], now=1000) == 4600


@pytest.mark.parametrize(("cache_ttl", "reviews"), [(60, 60), (120, 30)])
def test_a_process_asks_once_a_caller_and_a_token_and_a_ttl(
    monkeypatch: pytest.MonkeyPatch, cache_ttl: float, reviews: int
) -> None:
    monkeypatch.setattr(day, "CALLERS", 3)
    monkeypatch.setattr(day, "DAY", 2 * day.ROTATION)
    asked, requests = day.replay(Options(audience=("bob",), cache_ttl=cache_ttl))
    assert asked == 3 * 2 * reviews
    assert requests > 3 * 2 * 720


def test_without_single_flight_all_of_a_burst_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day, "CALLERS", 1)
    monkeypatch.setattr(day, "DAY", day.INTERVAL * len(day.BURSTS))
    assert day.without_single_flight(day.INTERVAL) == sum(day.BURSTS)
    assert day.without_single_flight(3600) == day.BURSTS[0]


def serve(listener: socket.socket, answers: list[bytes]) -> None:
    """Answer request after request, on connection after connection, until there is nothing left to say."""
    while answers:
        connection, _ = listener.accept()
        with connection:
            while answers and connection.recv(4096):
                answer = answers.pop(0)
                for piece in (answer[:20], answer[20:]):
                    connection.sendall(piece)
                if b"close" in answer:
                    break


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"


def test_the_load_keeps_a_connection_until_the_server_closes_it(listener: socket.socket) -> None:
    answers = [OK, OK, CLOSING, OK]
    server = threading.Thread(target=serve, args=(listener, answers))
    server.start()
    with Load(listener.getsockname()[1], LoadRequest(headers={"Accept": "*/*"}), connections=1) as load:
        assert load.send(4) == 4
    server.join(10)
    assert answers == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "401"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "length"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhello", "closed"),
    ],
)
def test_the_load_counts_no_answer_but_a_whole_200(listener: socket.socket, answer: bytes, reason: str) -> None:
    server = threading.Thread(target=serve, args=(listener, [answer]))
    server.start()
    with (
        Load(listener.getsockname()[1], LoadRequest(), connections=1) as load,
        pytest.raises(RuntimeError, match=reason),
    ):
        load.send(1)
    server.join(10)
