"""From the Authorization header to the one token it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from podproof.errors import MalformedCredential, NoCredential

MAX_TOKEN = 8192
"""The longest token looked at, in bytes. A service-account token has about 1,200."""

# The b64token alphabet of RFC 6750 section 2.1 without its padding, which no JSON Web Token has (RFC 7515 section 2).
_TOKEN = re.compile(rf"[A-Za-z0-9\-._~+/]{{1,{MAX_TOKEN}}}")

_SCHEME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # a token of RFC 9110 section 5.6.2


def bearer_token(headers: Sequence[str]) -> str:
    """Return the token of the Authorization header's occurrences, each decoded as Latin-1.

    Its characters are for `check_characters` to judge: a token that is remembered was judged when it was new.

    Raises NoCredential where there is no header or one of another scheme, MalformedCredential for all that is neither
    that nor `Bearer`, in any case, one blank, and a token.
    """
    if not headers:
        raise NoCredential("no Authorization header")
    if len(headers) > 1:
        raise MalformedCredential(f"{len(headers)} Authorization headers")
    scheme, blank, token = headers[0].partition(" ")
    if scheme.lower() != "bearer":
        if _SCHEME.fullmatch(scheme) is None:
            raise MalformedCredential("the Authorization header names no scheme")
        raise NoCredential("the Authorization header is not of the Bearer scheme")
    if not blank or not token:
        raise MalformedCredential("the Authorization header has the Bearer scheme and no token")
    if len(token) > MAX_TOKEN:
        raise MalformedCredential(f"the token is longer than {MAX_TOKEN} bytes")
    return token


def check_token_alphabet(token: str) -> None:
    """Refuse what no bearer token has in it: the API server cuts one at the first blank, so that `a` and `a b` are one.

    Raises MalformedCredential.
    """
    if _TOKEN.fullmatch(token) is None:
        raise MalformedCredential("the token has characters that no bearer token has")
