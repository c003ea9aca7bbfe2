"""The HTTP response to a request that is denied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple

from podproof.errors import NonceNeeded, PodAuthError


class HTTPResponse(NamedTuple):
    """An HTTP response: the status, the headers in order, the body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


BEARER: Mapping[str, str] = MappingProxyType({"Bearer": ""})
"""The schemes of the middlewares' own challenge."""


def problem_response(
    error: PodAuthError, *, realm: str, request_id: str, schemes: Mapping[str, str] = BEARER
) -> HTTPResponse:
    """Return problem details (RFC 9457) with the challenge of RFC 6750 section 3.

    `schemes` are those to challenge for, each with what its challenge has besides the realm and the error.

    The response shows the kind of denial alone; `request_id` leads to the log line that has the reason.
    """
    problem = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "request_id": request_id,
    }
    body = json.dumps(problem).encode() + b"\n"
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        word = f', error="{error.error}"' if error.error else ""
        headers += [("WWW-Authenticate", f'{scheme} realm="{realm}"{word}{more}') for scheme, more in schemes.items()]
    if isinstance(error, NonceNeeded):
        headers.append(("DPoP-Nonce", error.nonce))
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    return HTTPResponse(error.status, headers, body)


class Denial(NamedTuple):
    """A denial that is not sent yet, and its response. It is logged when the response begins, with the same ID."""

    error: PodAuthError
    request_id: str
    response: HTTPResponse
