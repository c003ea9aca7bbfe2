"""The accept queue of a listening socket: connections that no worker has accepted yet."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any, Protocol

__all__ = ["ListeningSocket", "accept_queue_length", "can_read_accept_queue"]

# struct tcp_info, include/uapi/linux/tcp.h: 8 bytes, then 32-bit fields, the fifth tcpi_unacked; a listening
# socket shows the length of its accept queue there.
_UNACKED = 8 + 4 * 4


class ListeningSocket(Protocol):
    """The part of a listening socket that is used here."""

    def getsockopt(self, level: int, option: int, size: int, /) -> Any:
        """Return the option's value."""


def can_read_accept_queue() -> bool:
    """Return True if this system tells the length of accept queues: Linux does, macOS and Windows do not."""
    return sys.platform == "linux" and hasattr(socket, "TCP_INFO")


def accept_queue_length(listener: ListeningSocket) -> int:
    """Return how many connections wait in the accept queue; 0 where the system does not tell (Unix sockets, macOS)."""
    if not can_read_accept_queue():
        return 0
    try:
        info: bytes = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", info, _UNACKED)[0])
