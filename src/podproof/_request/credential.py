"""From the header that has the credential to the one token it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from podproof._authentication.claims import MAX_TOKEN
from podproof._token.header_name import AUTHORIZATION
from podproof.errors import MalformedCredential, NoCredential

MAX_SCHEME = 64

_SCHEME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # a token of RFC 9110 section 5.6.2


class CredentialHeader:
    """A header, by the names that servers have for it: `key` in an environ, one of `names` in a scope, usually `exact`.

    gRPC has the same names in its metadata, as text: `texts`.

    Names with an underscore for a dash are among them: some servers and apps take one for the other, so that a request
    with both has two credentials, and the app sees neither.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.exact = name.lower().encode()
        self.key = "HTTP_" + name.upper().replace("-", "_")
        first, *rest = self.exact.split(b"-")
        choices = [(b"-" + part, b"_" + part) for part in rest]
        self.names = frozenset(first + b"".join(parts) for parts in product(*choices))
        self.texts = frozenset(name.decode() for name in self.names)


def bearer_token(headers: Sequence[str], schemes: Sequence[str] = ("Bearer",), name: str = AUTHORIZATION) -> str:
    """Return the token of the occurrences of the header of this name, each decoded as Latin-1.

    Raises NoCredential where there is no header or one of another scheme, MalformedCredential for all that is neither
    that nor one of `schemes`, in any case, one blank, and a token.
    """
    if not headers:
        raise NoCredential(f"no {name} header")
    if len(headers) > 1:
        raise MalformedCredential(f"{len(headers)} {name} headers")
    scheme, blank, token = headers[0].partition(" ")
    expected = " or ".join(schemes)
    if scheme[:MAX_SCHEME].lower() not in map(str.lower, schemes):
        if len(scheme) > MAX_SCHEME or _SCHEME.fullmatch(scheme) is None:
            raise MalformedCredential(f"the {name} header names no scheme")
        raise NoCredential(f"the {name} header is not of the {expected} scheme")
    if not blank or not token:
        raise MalformedCredential(f"the {name} header has the {expected} scheme and no token")
    if len(token) > MAX_TOKEN:
        raise MalformedCredential(f"the token is longer than {MAX_TOKEN} bytes")
    return token
