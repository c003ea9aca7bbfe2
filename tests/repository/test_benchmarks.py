from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from benchmarks.helper_process import HelperProcess
from benchmarks.load import LoadRequest, LoopbackLoad
from benchmarks.outage import SECONDS, STEP, Outcome, simulate
from benchmarks.pod_server import Pods
from benchmarks.repeats import Repeats, interleaved
from benchmarks.report import Amount, Measurement, as_json, table
from podproof._apiserver.json_list import parse_list
from podproof._authentication.pods import read_record


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
def test_an_amount_is_shown_in_a_readable_unit(amount: Amount, text: str) -> None:
    assert str(amount) == text


def test_each_round_starts_with_the_next_competitor() -> None:
    turns: list[str] = []

    def run(name: str) -> float:
        turns.append(name)
        return len(turns)

    repeats = interleaved({name: partial(run, name) for name in "abc"}, 4)
    assert "".join(turns) == "abcbcacababc"
    assert repeats.taken["a"] == [1, 6, 8, 10]


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # A machine that is ten times slower in one round is so for both.
    repeats = Repeats({"ours": [2, 20, 3], "theirs": [1, 10, 1]})
    assert repeats.median("ours") == 3
    assert repeats.ratio("ours", "theirs") == 2


def test_the_table_is_aligned_and_shows_what_is_met_missed_and_not_run() -> None:
    rows = [
        Measurement("short", Amount(1), "another", Amount(2), 0.5, "≤ 1x", met=True),
        Measurement("a longer one", Amount(3), goal="≤ 1", met=False, why="for a reason"),
        Measurement("left out", None, why="not run"),
    ]
    lines = table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["met", "missed: for a reason", "not run"]
    assert "0.50x" in lines[2]


def test_the_json_has_numbers_as_measured() -> None:
    row = as_json(Measurement("what", Amount(0.0015, "s"), "another", Amount(0.001, "s"), 1.5, "≤ 1x", met=False))
    assert (row["podproof"], row["there"], row["unit"], row["ratio"], row["met"]) == (
        0.0015,
        0.001,
        "s",
        1.5,
        False,
    )


def serve(listener: socket.socket, responses: list[bytes]) -> None:
    """Send one of the responses for each request, on one connection after the other, until none is left."""
    while responses:
        connection, _ = listener.accept()
        with connection:
            while responses and connection.recv(4096):
                response = responses.pop(0)
                for piece in (response[:20], response[20:]):
                    connection.sendall(piece)
                if b"close" in response:
                    break


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"


def test_the_load_reuses_a_connection_until_the_server_closes_it(listener: socket.socket) -> None:
    responses = [OK, OK, CLOSING, OK]
    server = threading.Thread(target=serve, args=(listener, responses))
    server.start()
    with LoopbackLoad(listener.getsockname()[1], LoadRequest(headers={"Accept": "*/*"}), connections=1) as load:
        assert load.send(4) == 4
    server.join(10)
    assert responses == []


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "401"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhello", "closed"),
    ],
)
def test_the_load_accepts_only_a_whole_200_response(listener: socket.socket, response: bytes, reason: str) -> None:
    server = threading.Thread(target=serve, args=(listener, [response]))
    server.start()
    with (
        LoopbackLoad(listener.getsockname()[1], LoadRequest(), connections=1) as load,
        pytest.raises(RuntimeError, match=reason),
    ):
        load.send(1)
    server.join(10)


def test_a_list_of_the_pod_server_is_what_its_changes_lead_to() -> None:
    pods = Pods(5)
    known = {pod["metadata"]["uid"]: pod for pod in map(json.loads, (pods.json(number, 0) for number in range(5)))}
    changes = pods.changes(pods.version)
    pods.events = 9  # each pod but the first changes twice or three times
    for _ in range(pods.events):
        changed = json.loads(next(changes))["object"]
        uid = changed["metadata"]["uid"]
        assert known[uid]["status"]["podIP"] != changed["status"]["podIP"]
        known[uid] = changed
    listed, metadata = parse_list("".join([*pods.page(0, 5)]).encode(), lambda pod: pod)
    assert listed == list(known.values())
    assert metadata["resourceVersion"] == changed["metadata"]["resourceVersion"]
    assert len({read_record(pod).addresses for pod in listed}) == 5


def test_a_helper_process_responds_to_each_command() -> None:
    with HelperProcess("pod_server", "3", "1.36") as server:
        assert server.ask("expire") is None
        first, end, _ = server.ask([0.01, 100])
        assert (first, end >= 1) == (0, True)


def test_an_outage_of_ten_minutes_loses_no_known_caller_and_lets_no_other_in() -> None:
    assert simulate() == Outcome(SECONDS // STEP, lost=0, let_in=0)
