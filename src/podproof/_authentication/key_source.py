"""Where an issuer's signing keys are read from: the API server, a `jwks_uri`, or a mounted file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from podproof._apiserver.protocols import SigningKeyReader
from podproof._authentication.json_url import JSONURL, MAX_DOCUMENT, parse_object
from podproof.errors import Unavailable


class KeySource(Protocol):
    """Reads a JWK Set; `str()` names it in the log."""

    def fetch(self, deadline: float) -> Mapping[str, Any]:
        """Return a JSON object. `deadline` is in monotonic seconds. Raises Unavailable."""


class APIServerKeys:
    """The keys that the API server publishes under `/openid/v1/jwks`."""

    def __init__(self, reader: SigningKeyReader) -> None:
        self._reader = reader

    def __str__(self) -> str:
        return "the API server"

    def fetch(self, deadline: float) -> Mapping[str, Any]:
        """Return the API server's JWK Set. Raises Unavailable."""
        return self._reader.signing_keys(deadline)


class URLKeys:
    """The keys at a `jwks_uri` (OpenID Connect Discovery 1.0 section 3), without a credential; see `JSONURL`."""

    def __init__(
        self,
        url: str,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = JSONURL(url, "signing keys", ca_file=ca_file, monotonic=monotonic)

    def __str__(self) -> str:
        return str(self._url)

    def fetch(self, deadline: float) -> Mapping[str, Any]:
        """Return the JWK Set at the URL. Raises Unavailable."""
        return self._url.get(deadline, accept="application/jwk-set+json, application/json")


class FileKeys:
    """The keys in a mounted file, such as that of a ConfigMap."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def __str__(self) -> str:
        return str(self._path)

    def fetch(self, deadline: float) -> Mapping[str, Any]:  # noqa: ARG002  a file is there or is not
        """Return the JWK Set in the file. Raises Unavailable."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        except OSError as error:
            raise Unavailable(f"the file cannot be read: {error.strerror}") from None
        return parse_object(data if len(data) <= MAX_DOCUMENT else None)


def make_key_source(jwks: str | None, reader: SigningKeyReader) -> KeySource:
    """Return the source that the option `jwks` names: an absolute path, a URL, or None for the API server."""
    if jwks is None:
        return APIServerKeys(reader)
    return FileKeys(jwks) if jwks.startswith("/") else URLKeys(jwks)
