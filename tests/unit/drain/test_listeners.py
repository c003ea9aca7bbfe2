"""The length of an accept queue, as the kernel tells it."""

from __future__ import annotations

import socket
from pathlib import Path

from podproof.drain.listeners import waiting


def test_connections_that_nobody_has_accepted_are_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = [waiting(listener)]
        with socket.create_connection(listener.getsockname()), socket.create_connection(listener.getsockname()):
            seen.append(waiting(listener))
            listener.accept()[0].close()
            seen.append(waiting(listener))
    assert seen == [0, 2, 1]


def test_a_unix_socket_does_not_say(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert waiting(listener) == 0
