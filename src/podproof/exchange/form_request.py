"""From an HTTP request to the form in it, read within bounds."""

from __future__ import annotations

import re

import anyio
from starlette.requests import ClientDisconnect, Request

from podproof.exchange.oauth_error import OAuthError
from podproof.exchange.token_request import MAX_BODY, Form, parse_form

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}")  # of an Authorization header


async def read_form(request: Request, seconds: float) -> Form:
    """Return the parameters of a request, which has to send them within so many seconds.

    Raises OAuthError.
    """
    if request.scope["query_string"]:
        raise OAuthError("invalid_request", "Parameters belong in the body: URLs are logged.")
    return parse_form(request.headers.get("content-type", ""), await _read_body(request, seconds))


def refuse_authorization(request: Request) -> None:
    """Raise OAuthError for a client that authenticates by the Authorization header (RFC 6749 section 5.2)."""
    for value in request.headers.getlist("authorization"):
        scheme = _SCHEME.match(value)
        challenge = f'{scheme[0] if scheme else "Bearer"} realm="token"'
        raise OAuthError(
            "invalid_client",
            "Clients authenticate by a client_assertion, not by the Authorization header.",
            status=401,
            headers={"WWW-Authenticate": challenge},
        )


async def _read_body(request: Request, seconds: float) -> bytes:
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or len(length) > 10 or int(length) > MAX_BODY:
        raise _too_long()
    body = bytearray()
    try:
        with anyio.fail_after(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise _too_long()
    except TimeoutError:
        raise OAuthError("invalid_request", "The body took too long.", status=408) from None
    except ClientDisconnect:
        raise OAuthError("invalid_request", "The body is incomplete.") from None
    return bytes(body)


def _too_long() -> OAuthError:
    return OAuthError("invalid_request", f"The body is longer than {MAX_BODY} bytes.", status=413)
