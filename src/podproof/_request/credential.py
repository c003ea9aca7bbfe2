"""From the Authorization header to the one token it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from podproof._authentication.claims import MAX_TOKEN
from podproof.errors import MalformedCredential, NoCredential

MAX_SCHEME = 64

_SCHEME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # a token of RFC 9110 section 5.6.2


def bearer_token(headers: Sequence[str], schemes: Sequence[str] = ("Bearer",)) -> str:
    """Return the token of the Authorization header's occurrences, each decoded as Latin-1.

    Raises NoCredential where there is no header or one of another scheme, MalformedCredential for all that is neither
    that nor one of `schemes`, in any case, one blank, and a token.
    """
    if not headers:
        raise NoCredential("no Authorization header")
    if len(headers) > 1:
        raise MalformedCredential(f"{len(headers)} Authorization headers")
    scheme, blank, token = headers[0].partition(" ")
    expected = " or ".join(schemes)
    if scheme[:MAX_SCHEME].lower() not in map(str.lower, schemes):
        if len(scheme) > MAX_SCHEME or _SCHEME.fullmatch(scheme) is None:
            raise MalformedCredential("the Authorization header names no scheme")
        raise NoCredential(f"the Authorization header is not of the {expected} scheme")
    if not blank or not token:
        raise MalformedCredential(f"the Authorization header has the {expected} scheme and no token")
    if len(token) > MAX_TOKEN:
        raise MalformedCredential(f"the token is longer than {MAX_TOKEN} bytes")
    return token
