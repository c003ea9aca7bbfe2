"""The token in the metadata of calls: as call credentials, and in call details for interceptors."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import grpc

from podproof.client import TokenClient
from podproof.errors import TokenUnavailable


def call_credentials(client: TokenClient) -> grpc.CallCredentials:
    """Return call credentials that send this pod's token: for secure channels, of `grpc` and of `grpc.aio`.

    >>> credentials = grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), call_credentials(client))
    >>> channel = grpc.secure_channel("bob:443", credentials)

    Without a token, or for a host that is not in the client's `hosts`, a call fails with UNAVAILABLE and is not sent.
    """
    return grpc.metadata_call_credentials(_TokenPlugin(client), "podproof")


class _TokenPlugin(grpc.AuthMetadataPlugin):
    """Reads the token for each call, since it rotates. gRPC calls this in threads of its own."""

    def __init__(self, client: TokenClient) -> None:
        self._client = client

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """Hand over the metadata, or why there is none."""
        try:
            # Of a local connection it has no scheme.
            url = context.service_url if context.service_url[:1] != ":" else f"local{context.service_url}"
            metadata = token_metadata(self._client, url)
        except Exception as error:  # noqa: BLE001  whatever it is, the call fails
            callback((), error)
        else:
            callback(metadata, None)


def token_metadata(client: TokenClient, url: str | None = None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that sends the token. Raises TokenUnavailable, and HostNotAllowed for a URL."""
    return tuple((name.lower(), value) for name, value in client.headers(url).items())


class AuthorizedDetails(grpc.ClientCallDetails):
    """The details of a call with other metadata, and the time that is left; all else is as it was given."""

    def __init__(self, given: Any, metadata: Any, timeout: float | None) -> None:
        self._given = given
        self.metadata = metadata
        self.timeout = timeout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._given, name)


class Attempts:
    """The token of a call's first attempt, and of the second one where the first was denied.

    A token that the app sends itself is kept: `details` are those that were given.
    """

    def __init__(self, client: TokenClient, details: Any, make_metadata: Any = tuple) -> None:
        self._client = client
        self._given = details
        self._make = make_metadata
        self._began = time.monotonic()
        self._sent: tuple[tuple[str, str], ...] | None = None
        self.details = details
        token = token_metadata(client)
        names = {name for name, _ in token}
        if not any(name in names for name, _ in self._metadata):
            self._sent = token
            self.details = self._with(token)

    def again(self, code: object) -> Any:
        """Return the details of a second attempt, None if there is to be none.

        There is one if the first ended with UNAUTHENTICATED, and the file holds another token by now.
        """
        if self._sent is None or code is not grpc.StatusCode.UNAUTHENTICATED:
            return None
        try:
            token = token_metadata(self._client)
        except TokenUnavailable:
            return None
        return self._with(token) if token != self._sent else None

    @property
    def _metadata(self) -> Iterable[tuple[str, Any]]:
        return self._given.metadata or ()

    def _with(self, token: tuple[tuple[str, str], ...]) -> AuthorizedDetails:
        timeout = self._given.timeout
        if timeout is not None:
            timeout = max(timeout - (time.monotonic() - self._began), 0)
        return AuthorizedDetails(self._given, self._make((*self._metadata, *token)), timeout)
