"""The length of an accept queue, as the kernel tells it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from podproof.drain.accept_queue import accept_queue_length, can_read_accept_queue


def test_the_length_is_the_number_of_connections_not_yet_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lengths = [accept_queue_length(listener)]
        with socket.create_connection(listener.getsockname()), socket.create_connection(listener.getsockname()):
            lengths.append(accept_queue_length(listener))
            listener.accept()[0].close()
            lengths.append(accept_queue_length(listener))
    assert can_read_accept_queue()
    assert lengths == [0, 2, 1]


def test_the_length_of_a_unix_sockets_queue_is_unknown_and_counts_as_0(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert accept_queue_length(listener) == 0


def test_on_macos_no_queue_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        assert not can_read_accept_queue()
        assert accept_queue_length(listener) == 0


def test_without_tcp_info_no_queue_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_INFO")
    assert not can_read_accept_queue()
