"""Responses of the API server, as they are read from a connection."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ssl import SSLCertVerificationError
from typing import Any, NamedTuple

from urllib3.response import BaseHTTPResponse

from podproof._apiserver.timely_http import read_body

MAX_RESPONSE = 4 * 1024 * 1024
"""The longest response read, in bytes. etcd holds no object above 1.5 MiB."""

# RFC 6839 section 3.1: a JWKS is application/jwk-set+json.
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json(?:[ \t]*;.*)?", re.IGNORECASE)


class APIResponse(NamedTuple):
    """A response of the API server: its JSON object, empty for an error without one.

    `retry_after` is in seconds, None without that header; `date` is the server's time, an HTTP-date.
    """

    status: int
    document: Mapping[str, Any]
    retry_after: float | None
    date: str

    def clock(self) -> float | None:
        """Return the server's time (RFC 9110 section 5.6.7) in Unix seconds, None without a valid Date header."""
        try:
            return parsedate_to_datetime(self.date).timestamp()
        except ValueError:
            return None


class ConnectionFailed(Exception):
    """A request got no usable response; `str()` says why, without anything that was sent."""


class UnexpectedStatus(ConnectionFailed):
    """A streamed response has another status than 200; `retry_after` is in seconds, None without that header."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


class StreamSilent(ConnectionFailed):
    """Nothing came for the whole read timeout of a stream."""


class LineTooLong(ConnectionFailed):
    """A line of a stream is longer than was asked for."""


def is_json(response: BaseHTTPResponse) -> bool:
    """Return True if a response says that it is JSON: another type is a proxy's page, even if it parses."""
    return _JSON.fullmatch(response.headers.get("Content-Type", "")) is not None


def parse_retry_after(response: BaseHTTPResponse) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 section 10.2.3), None without one, or for a date."""
    pause = response.headers.get("Retry-After", "")
    return float(pause) if pause.isascii() and pause.isdigit() else None


def read_response(response: BaseHTTPResponse) -> bytes:
    """Return the body. Raises ConnectionFailed for more than MAX_RESPONSE bytes."""
    data = read_body(response, MAX_RESPONSE)
    if data is None:
        raise ConnectionFailed(f"response longer than {MAX_RESPONSE} bytes")
    return data


def release(response: BaseHTTPResponse) -> None:
    """Keep the connection if its response was read to the end, else close it."""
    if response.closed:
        response.release_conn()
    else:
        response.close()


def parse_response(response: BaseHTTPResponse, data: bytes) -> APIResponse:
    """Return a response and its JSON object. Raises ConnectionFailed for what no API server sends."""
    try:
        document = json.loads(data) if is_json(response) else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        if response.status < HTTPStatus.BAD_REQUEST:
            raise ConnectionFailed(f"status {response.status} without a JSON object")
        document = {}
    if response.status == HTTPStatus.NOT_FOUND and document.get("kind") != "Status":
        raise ConnectionFailed("status 404 without a Status object: not from an API server")
    return APIResponse(response.status, document, parse_retry_after(response), response.headers.get("Date", ""))


def describe_error(error: BaseException) -> str:
    """Return the type of an error and of the one that it wraps."""
    inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
    if isinstance(inner, SSLCertVerificationError):
        return f"{type(inner).__name__}: {inner.verify_message}"  # what OpenSSL says of the server's certificate
    return type(error).__name__ + (f" ({type(inner).__name__})" if isinstance(inner, BaseException) else "")
