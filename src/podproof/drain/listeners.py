"""Listening sockets: how many connections wait in one's accept queue."""

from __future__ import annotations

import socket
import struct
from typing import Any, Protocol

# struct tcp_info, include/uapi/linux/tcp.h: 8 bytes, then 32-bit fields, the fifth tcpi_unacked; a listening
# socket shows the length of its accept queue there.
_UNACKED = 8 + 4 * 4


class Listener(Protocol):
    """What is asked of a listening socket."""

    def getsockopt(self, level: int, option: int, size: int, /) -> Any:
        """Return the option's value."""


def waiting(listener: Listener) -> int:
    """Return how many connections no worker has accepted yet; 0 where the system does not say (Unix sockets)."""
    try:
        info: bytes = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", info, _UNACKED)[0])
