"""`Exchange`: where a pod's token is traded, and for what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from podproof.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Exchange:
    """A token endpoint (RFC 8693), and what is asked for there.

    `url`: the endpoint, such as `https://bridge/token`. `scopes`: those that are asked for; none: all that the pod may
    have. `dpop`: whether the issued token is bound to a key of this process (RFC 9449), so that nobody else can use it;
    needs `podproof[dpop]`. `ca_file`: the certificate authorities that are trusted, by default those of `requests`.
    `timeout`: seconds that it may take to connect, and to send each part of the response.

    Raises ConfigurationError.
    """

    url: str
    scopes: Sequence[str] = ()
    dpop: bool = True
    ca_file: str | os.PathLike[str] | None = None
    timeout: float = 5.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or "@" in parts.netloc or parts.fragment:
            raise ConfigurationError(
                f"invalid exchange {self.url!r}: expected the URL of a token endpoint, such as https://bridge/token"
            )
        if isinstance(self.scopes, str):
            raise ConfigurationError(f"invalid scopes {self.scopes!r}: expected a list of scopes")
