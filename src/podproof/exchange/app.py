"""`TokenExchange`: the token endpoint and what belongs to it, as an ASGI app."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra("podproof.exchange", "asgi")

import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Unpack, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from podproof._authentication.authenticator import Authenticator
from podproof._authorization.reloaded import Reloaded
from podproof._request.pipeline import RequestPipeline
from podproof._request.setup import MiddlewareOptions, build_own_pipeline
from podproof.errors import ConfigurationError
from podproof.exchange import introspection_endpoint, token_endpoint
from podproof.exchange.callers import Callers
from podproof.exchange.dpop import DPoPVerifier
from podproof.exchange.grants import Grant, Grants
from podproof.exchange.grants_file import read_grants
from podproof.exchange.introspection_endpoint import IntrospectionEndpoint
from podproof.exchange.issued_token import IssuedTokens
from podproof.exchange.key_directory import MAX_AGE, SECRET_SUFFIX, KeyDirectory
from podproof.exchange.metadata import discovery_document
from podproof.exchange.nonces import Nonces
from podproof.exchange.options import ExchangeArguments, ExchangeOptions, split_arguments
from podproof.exchange.pairwise import PairwiseSubjects
from podproof.exchange.token_endpoint import TokenEndpoint
from podproof.exchange.token_issuer import TokenIssuer
from podproof.exchange.user_tokens import UserTokens

_CACHED = {"Cache-Control": f"public, max-age={MAX_AGE}"}


class TokenExchange:
    """Issues tokens to pods, as an ASGI app: a pod trades its projected token for one of your own system.

    `POST /token` (RFC 8693, RFC 7523), `POST /introspect` (RFC 7662), `/jwks.json`, and the discovery documents below
    `/.well-known/`. Options are those of `ExchangeOptions`, or PODPROOF_EXCHANGE_<NAME> in the environment, and those
    of a middleware, by which callers are judged, or PODPROOF_<NAME>; pods are watched unless `pods` says otherwise.
    `now` returns Unix seconds, `monotonic` those of a clock that is never set.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        **given: Unpack[ExchangeArguments],
    ) -> None:
        own, middleware = split_arguments(given)
        options = ExchangeOptions.read(own, os.environ)
        self._authenticator, self._pipeline = _build_pipeline(middleware, os.environ)
        callers = Callers(self._pipeline, None if self._authenticator is None else self._authenticator.pods)
        self._keys = KeyDirectory(options.keys, secret=options.pairwise_secret, monotonic=monotonic)
        self._pairwise = PairwiseSubjects(self._keys.files)
        grants = self._read_grants(options, monotonic)
        tokens = TokenIssuer(options.issuer, self._keys, self._pairwise, lifetime=options.lifetime, now=now)
        users = UserTokens(options.user_issuers, callers.options.audience, now=now)
        issued = IssuedTokens(options.issuer, self._keys, self._pairwise, now=now)
        uris = [f"{url}{token_endpoint.PATH}" for url in (options.issuer, *options.urls)]
        nonces = Nonces(self._keys.nonce_secrets, now=now) if options.nonce else None
        token = TokenEndpoint(
            callers,
            grants,
            tokens,
            users,
            partial(DPoPVerifier(nonces=nonces, now=now).verify, method="POST", uris=uris),
            needs_proof=options.dpop == "required",
            nonces=nonces,
        )
        self._discovery = discovery_document(options.issuer)
        self._app = Starlette(
            routes=[
                Route(token_endpoint.PATH, token.respond, methods=["POST"]),
                Route(
                    introspection_endpoint.PATH,
                    IntrospectionEndpoint(callers, grants, issued).respond,
                    methods=["POST"],
                ),
                Route("/jwks.json", self._show_keys),
                Route("/.well-known/openid-configuration", self._show_discovery),
                Route("/.well-known/oauth-authorization-server", self._show_discovery),
            ],
            lifespan=self.lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Begin what is checked once a process, and end its threads: the lifespan of an app that this is mounted in."""
        self._pipeline.begin()
        yield
        self.close()

    def pairwise(self, user_id: str, audience: str) -> str:
        """Return the subject that stands for an ID of your own at an audience: another one at each.

        Raises ValueError for an ID that is empty or longer than 1024 bytes, ConfigurationError without a secret.
        """
        return self._pairwise.make("own", user_id, audience)

    def close(self) -> None:
        """End the threads of this process."""
        if self._authenticator is not None:
            self._authenticator.close()

    def _read_grants(self, options: ExchangeOptions, monotonic: Callable[[], float]) -> Callable[[], Grants]:
        def make(grants: Iterable[Grant], where: str) -> Grants:
            try:
                made = Grants(grants, options.subject, user_issuers=options.user_issuers)
            except ValueError as error:
                raise ConfigurationError(f"invalid {where}: {error}") from None
            if made.needs_secret and not self._pairwise.available:
                raise ConfigurationError(
                    f"pairwise subjects need a secret: a file *{SECRET_SUFFIX} in the directory of keys, {options.keys}"
                )
            return made

        if options.grants_file is not None:
            return Reloaded(
                options.grants_file,
                lambda path: make(read_grants(path), f"grants file {path}"),
                what="grants",
                monotonic=monotonic,
            ).get
        grants = make(options.grants or (), "grants")
        return lambda: grants

    async def _show_keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [key.jwk for key in self._keys.published_keys()]}, headers=_CACHED)

    async def _show_discovery(self, _: Request) -> Response:
        return JSONResponse(self._discovery, headers=_CACHED)


_WITHOUT_CALLER = ("exempt", "optional")


def _build_pipeline(
    given: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Authenticator | None, RequestPipeline]:
    """Return the pipeline of a middleware's options, and its authenticator if that is podproof's own.

    Pods are watched by default, so that the end of a pod is known at once. Raises ConfigurationError, also for options
    that let requests pass without a caller.
    """
    arguments = dict(given)
    if arguments.get("authenticator") is None:
        arguments = {"pods": environ.get("PODPROOF_PODS") or "watch", **arguments}
    authenticator, pipeline = build_own_pipeline(cast("MiddlewareOptions", arguments), environ)
    if passing := [name for name in _WITHOUT_CALLER if getattr(pipeline.options, name)]:
        raise ConfigurationError(f"{passing[0]} cannot be used here: no token is issued without a caller")
    return authenticator, pipeline
