"""`Authenticator`: which pod a token's caller is, for code that has a token and an address, and no middleware."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "server")

import os
from typing import Self, Unpack

from podproof._request import blocking_driver
from podproof._request.flow import Allowed, Flow
from podproof._request.incoming import IncomingRequest
from podproof._request.setup import build_authenticator, build_pipeline
from podproof.errors import ConfigurationError, Unavailable
from podproof.identity import PodIdentity
from podproof.options import OptionArguments, Options

__all__ = ["Authenticator"]


class Authenticator:
    """Decides who is calling: the same checks as the middleware's, without an HTTP request, and without its log.

    Make one for each audience and keep it: it has a cache, and the threads that ask the API server. It takes the
    options of the middleware, but for those that are about a request: with `rules`, `rules_file`, `policy` or
    `enforce=False` it raises ConfigurationError.
    """

    def __init__(self, **given: Unpack[OptionArguments]) -> None:
        options = Options.read(given, os.environ)
        for name in ("rules", "rules_file", "policy"):
            if getattr(options, name) is not None:
                raise ConfigurationError(f"an Authenticator has no {name}: there is no request to decide on")
        if not options.enforce:
            raise ConfigurationError("an Authenticator cannot only report: enforce has to be on")
        self._authenticator = build_authenticator(options)
        self._pipeline = build_pipeline({"authenticator": self._authenticator})

    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        """Return the caller, from the cache or by asking the API server. Blocks for up to `timeout` seconds.

        `token` is what stands behind `Bearer`, `peer` the IP address at the other end of the caller's connection, never
        one that the caller has written itself. Without a peer the caller is denied, unless `source_address` is "off".

        Raises a PodAuthError to deny: InvalidToken and MalformedCredential for the token, Forbidden for the caller,
        Unavailable and NoAddressYet if it may be tried again (`retryable`).
        """
        return _identity(blocking_driver.run_flow(self._flow(token, peer)))

    async def authenticate_async(self, token: str, peer: str | None) -> PodIdentity:
        """Return the same as `authenticate`, waiting on the event loop, asyncio's or trio's, without a thread."""
        require_extra("podproof.Authenticator.authenticate_async", "asgi")
        from podproof._request import async_driver  # noqa: PLC0415  needs anyio

        return _identity(await async_driver.run_flow(self._flow(token, peer)))

    def close(self) -> None:
        """End the threads that ask the API server; a later call starts new ones."""
        self._authenticator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flow(self, token: str, peer: str | None) -> Flow:
        authorization = (f"Bearer {token}",)
        return self._pipeline.decide(
            IncomingRequest("", path="", raw_path=None, full_path="", remote=peer, authorization=authorization)
        )


def _identity(allowed: Allowed) -> PodIdentity:
    if allowed.caller is None:  # pragma: no cover  no option above allows an anonymous caller
        raise Unavailable("the caller was not authenticated")
    return allowed.caller.identity
