"""A request's facts, as a driver reads them out of a WSGI environ or an ASGI scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class IncomingRequest(NamedTuple):
    """What decides on a request, and what is logged about it. Headers are decoded as Latin-1, in order.

    `path` is the path as the wrapped app routes it, empty if it may be read in different ways, and `other_paths` are
    what some frameworks may take it for besides, `raw_path` the path as the client sent it (None if the server does
    not say), `full_path` the path with the root it is mounted at. `remote` is the address of the socket's other end as
    the server spells it; `rewritten` means that the server has put a header's address in its place. `authenticated`
    means that another PodAuthMiddleware has handled the request already, `websocket` that it is a handshake, `grpc`
    that it is a call of gRPC. `address_headers` are the other headers that may hold an address (`ADDRESS_HEADERS`).
    `trailers` means that forwarded headers may be trailers, `overlong` that there are too many header lines to be read.
    `proofs` are the lines of the DPoP header; where there are some, `origin` is the scheme and the Host header:
    `https://bob:8443`. `authorization` is the header with the credential.
    """

    method: str
    path: str
    raw_path: str | None
    full_path: str
    remote: str | None
    authorization: Sequence[str] = ()
    x_forwarded_for: Sequence[str] = ()
    forwarded: Sequence[str] = ()
    traceparent: str | None = None
    rewritten: bool = False
    authenticated: bool = False
    websocket: bool = False
    grpc: bool = False
    address_headers: Sequence[str] = ()
    trailers: bool = False
    overlong: bool = False
    other_paths: Sequence[str] = ()
    proofs: Sequence[str] = ()
    origin: str | None = None
