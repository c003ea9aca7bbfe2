"""The HTTP response to a request that is denied."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import NamedTuple

from podproof.errors import PodAuthError


class HTTPResponse(NamedTuple):
    """An HTTP response: the status, the headers in order, the body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def problem_response(error: PodAuthError, *, realm: str, request_id: str) -> HTTPResponse:
    """Return problem details (RFC 9457) with the challenge of RFC 6750 section 3.

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
        headers.append(("WWW-Authenticate", f'Bearer realm="{realm}"{word}'))
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    return HTTPResponse(error.status, headers, body)


class Denial(NamedTuple):
    """A denial that is not sent yet, and its response. It is logged when the response begins, with the same ID."""

    error: PodAuthError
    request_id: str
    response: HTTPResponse
