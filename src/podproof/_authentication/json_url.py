"""A URL that responds with a JSON object: keys, or whether a token is active."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from podproof._apiserver.timely_http import TIMELY_POOLS, read_body
from podproof._cache.fork_local import ForkLocal
from podproof._version import __version__
from podproof.errors import ConfigurationError, Unavailable

MAX_DOCUMENT = 256 * 1024
"""The longest document that is read, in bytes. A key of a JWK Set has about 500."""


class JSONURL:
    """A URL that is requested without redirects or a proxy; `what` it has is named in messages.

    `url` is https; http on loopback addresses alone. `ca_file` has the certificate authorities that are trusted, by
    default the system's. `monotonic` is the clock of deadlines, in seconds.

    Raises ConfigurationError for any other URL.
    """

    def __init__(
        self,
        url: str,
        what: str,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = _split_url(url)
        if parts is None or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
            raise ConfigurationError(
                f"invalid URL of {what}: expected https://HOST/PATH without a user and a fragment, or http on a "
                "loopback address"
            )
        self._url = url
        self._name = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._ca_file = ca_file
        self._monotonic = monotonic
        self._manager = ForkLocal(self._make_manager)

    def __str__(self) -> str:
        return self._name

    def get(self, deadline: float, *, accept: str = "application/json") -> Mapping[str, Any]:
        """Return the document, whatever its content type is: storage buckets serve some. Raises Unavailable."""
        return self._request("GET", deadline, {"Accept": accept})

    def post(self, form: Mapping[str, str], deadline: float, *, authorization: str) -> Mapping[str, Any]:
        """Return the response to a form. Raises Unavailable."""
        headers = {"Accept": "application/json", "Authorization": authorization}
        return self._request("POST", deadline, headers, fields=form, encode_multipart=False)

    def _request(self, method: str, deadline: float, headers: Mapping[str, str], **more: Any) -> Mapping[str, Any]:
        seconds = deadline - self._monotonic()
        if seconds <= 0:
            raise Unavailable("no time left")
        try:
            response = self._manager.get().request(
                method,
                self._url,
                headers={**headers, "User-Agent": f"podproof/{__version__}"},
                timeout=urllib3.Timeout(total=seconds),
                redirect=False,  # it might lead to plain http
                retries=False,
                preload_content=False,
                **more,
            )
            try:
                data = read_body(response, MAX_DOCUMENT)
            finally:
                response.close()
        except (HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"the request failed with {type(error).__name__}") from None
        if response.status != HTTPStatus.OK:
            raise Unavailable(f"the response has status {response.status}")
        return parse_object(data)

    def _make_manager(self) -> urllib3.PoolManager:
        context = ssl.create_default_context(cafile=self._ca_file)
        manager = urllib3.PoolManager(ssl_context=context)
        manager.pool_classes_by_scheme = dict(TIMELY_POOLS)
        return manager


def parse_object(data: bytes | None) -> Mapping[str, Any]:
    """Return a JSON object; None is one that is too long. Raises Unavailable."""
    if data is None:
        raise Unavailable(f"the document is longer than {MAX_DOCUMENT} bytes")
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
