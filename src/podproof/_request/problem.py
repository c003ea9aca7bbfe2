"""From a refusal to the HTTP answer that a caller gets."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import NamedTuple

from podproof.errors import PodAuthError


class Answer(NamedTuple):
    """An HTTP answer: the status, the headers in order, the body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def answer(refusal: PodAuthError, *, realm: str, request_id: str) -> Answer:
    """Return problem details (RFC 9457) with the challenge of RFC 6750 section 3.

    Only the refusal's family shows; `request_id` leads to the log line that has the reason.
    """
    problem = {
        "type": "about:blank",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
        "request_id": request_id,
    }
    body = json.dumps(problem).encode() + b"\n"
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    if refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        word = f', error="{refusal.error}"' if refusal.error else ""
        headers.append(("WWW-Authenticate", f'Bearer realm="{realm}"{word}'))
    if refusal.retry_after is not None:
        headers.append(("Retry-After", str(refusal.retry_after)))
    return Answer(refusal.status, headers, body)
