"""The keys of an issuer, found by its discovery document (OpenID Connect Discovery 1.0 section 4, RFC 8414)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from podproof._authentication.key_source import URLKeys
from podproof.errors import ConfigurationError, Unavailable

DOCUMENT = "/.well-known/openid-configuration"


class DiscoveredKeys:
    """The keys at the `jwks_uri` that an issuer's discovery document names, which is read anew each time.

    `ca_file` has the certificate authorities that are trusted, by default the system's.

    Raises ConfigurationError for an issuer that is not an https URL, as `URLKeys` does.
    """

    def __init__(self, issuer: str, *, ca_file: str | os.PathLike[str] | None = None) -> None:
        self._issuer = issuer
        self._ca_file = ca_file
        self._document = URLKeys(issuer.rstrip("/") + DOCUMENT, ca_file=ca_file)
        self._keys: dict[str, URLKeys] = {}

    def __str__(self) -> str:
        return self._issuer

    def fetch(self, deadline: float) -> Mapping[str, Any]:
        """Return the issuer's JWK Set. Raises Unavailable."""
        document = self._document.fetch(deadline)
        uri = document.get("jwks_uri")
        if document.get("issuer") != self._issuer:
            raise Unavailable("the discovery document is that of another issuer")
        if not isinstance(uri, str):
            raise Unavailable("the discovery document has no jwks_uri")
        keys = self._keys.get(uri)
        if keys is None:
            try:
                keys = URLKeys(uri, ca_file=self._ca_file)
            except ConfigurationError:
                raise Unavailable("the discovery document's jwks_uri is not an https URL") from None
            self._keys = {uri: keys}
        return keys.fetch(deadline)
