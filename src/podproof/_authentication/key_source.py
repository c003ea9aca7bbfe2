"""Where an issuer's signing keys are read from: the API server, a `jwks_uri`, or a mounted file."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from podproof._apiserver.protocols import SigningKeyReader
from podproof._apiserver.timely_http import TIMELY_POOLS, read_body
from podproof._cache.fork_local import ForkLocal
from podproof._version import __version__
from podproof.errors import ConfigurationError, Unavailable

MAX_KEY_SET = 256 * 1024
"""The longest JWK Set that is read, in bytes. One key has about 500."""


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
    """The keys at a `jwks_uri` (OpenID Connect Discovery 1.0 section 3), without a credential, redirects or a proxy.

    `url` is https; http on loopback addresses alone. `ca_file` has the certificate authorities that are trusted, by
    default the system's. `monotonic` is the clock of deadlines, in seconds.

    Raises ConfigurationError for any other URL.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = _split_url(url)
        if parts is None or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
            raise ConfigurationError(
                "invalid URL of signing keys: expected https://HOST/PATH without a user and a fragment, or http on a "
                "loopback address"
            )
        self._url = url
        self._name = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._ca_file = ca_file
        self._monotonic = monotonic
        self._manager = ForkLocal(self._make_manager)

    def __str__(self) -> str:
        return self._name

    def fetch(self, deadline: float) -> Mapping[str, Any]:
        """Return the JWK Set at the URL, whatever its content type is: storage buckets serve some.

        Raises Unavailable.
        """
        seconds = deadline - self._monotonic()
        if seconds <= 0:
            raise Unavailable("no time left")
        try:
            response = self._manager.get().urlopen(
                "GET",
                self._url,
                headers={
                    "Accept": "application/jwk-set+json, application/json",
                    "User-Agent": f"podproof/{__version__}",
                },
                timeout=urllib3.Timeout(total=seconds),
                redirect=False,  # it might lead to plain http
                retries=False,
                preload_content=False,
            )
            try:
                data = read_body(response, MAX_KEY_SET)
            finally:
                response.close()
        except (HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"the request failed with {type(error).__name__}") from None
        if response.status != HTTPStatus.OK:
            raise Unavailable(f"the response has status {response.status}")
        return _parse(data)

    def _make_manager(self) -> urllib3.PoolManager:
        context = ssl.create_default_context(cafile=self._ca_file)
        manager = urllib3.PoolManager(ssl_context=context)
        manager.pool_classes_by_scheme = dict(TIMELY_POOLS)
        return manager


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
                data = file.read(MAX_KEY_SET + 1)
        except OSError as error:
            raise Unavailable(f"the file cannot be read: {error.strerror}") from None
        return _parse(data if len(data) <= MAX_KEY_SET else None)


def make_key_source(jwks: str | None, reader: SigningKeyReader) -> KeySource:
    """Return the source that the option `jwks` names: an absolute path, a URL, or None for the API server."""
    if jwks is None:
        return APIServerKeys(reader)
    return FileKeys(jwks) if jwks.startswith("/") else URLKeys(jwks)


def _parse(data: bytes | None) -> Mapping[str, Any]:
    if data is None:
        raise Unavailable(f"the JWK Set is longer than {MAX_KEY_SET} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable("this is not a JSON object")
    return document


def _split_url(url: str) -> SplitResult | None:
    """Return the parts of a URL, None without a host, or with a user, a fragment or an invalid port."""
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0 and not parts.fragment and "@" not in parts.netloc
    except ValueError:
        return None
    return parts if usable else None


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False
