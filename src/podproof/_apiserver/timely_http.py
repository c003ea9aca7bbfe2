"""HTTP in which the timeout of a request covers its whole response, and a body has a longest size."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Any, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def read_body(response: BaseHTTPResponse, most: int) -> bytes | None:
    """Return the body of a response that is not preloaded, None if it is longer than `most` bytes.

    Raises urllib3's HTTPError, or OSError.
    """
    data = bytearray()
    while chunk := response.read1(65536):
        data += chunk
        if len(data) > most:
            return None
    return bytes(data)


class TimelyIO(io.RawIOBase):
    """Reads from a socket until its timeout has passed in all.

    The socket's own timeout starts again with each byte: a server that drips bytes would hold a request for ever.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._end = time.monotonic() + cast("float", sock.gettimeout())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimelyResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(TimelyIO(self.fp.detach(), sock))


class _HTTPConnection(HTTPConnection):
    response_class = _TimelyResponse


class _HTTPSConnection(HTTPSConnection):
    response_class = _TimelyResponse


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


TIMELY_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}
"""By scheme, the classes for a pool manager's `pool_classes_by_scheme`."""
