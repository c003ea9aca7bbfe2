"""`TokenExchange`: the token endpoint and what goes with it, as an ASGI app."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra("podproof.exchange", "asgi")

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from podproof._request.asgi_request import read_request
from podproof._request.async_driver import run_flow
from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof.errors import ConfigurationError, PodAuthError, Unavailable
from podproof.exchange.grants import Grant, Grants
from podproof.exchange.key_directory import MAX_AGE, KeyDirectory
from podproof.exchange.lifetime import DEFAULT_LIFETIME
from podproof.exchange.metadata import authorization_server_metadata
from podproof.exchange.oauth_error import error_body, error_of_denial
from podproof.exchange.token_issuer import TokenIssuer
from podproof.exchange.token_request import MAX_BODY, TOKEN_EXCHANGE, OAuthError, parse_form, parse_token_request

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 section 5.1


class TokenExchange:
    """An ASGI app that issues tokens to pods: POST /token trades a projected token for one of your own system."""

    def __init__(
        self,
        *,
        issuer: str,
        keys: str | PathLike[str],
        grants: Iterable[Grant] = (),
        lifetime: float = DEFAULT_LIFETIME,
        **given: Unpack[MiddlewareOptions],
    ) -> None:
        self._issuer = issuer
        self._keys = KeyDirectory(Path(keys))
        self._grants = Grants(grants)
        self._tokens = TokenIssuer(issuer, self._keys, lifetime=lifetime)
        self._pipeline = build_pipeline(given)
        metadata = authorization_server_metadata(issuer)

        async def discovery(_: Request) -> Response:
            return JSONResponse(metadata, headers={"Cache-Control": f"public, max-age={MAX_AGE}"})

        self._app = Starlette(
            routes=[
                Route("/token", self._token, methods=["POST"]),
                Route("/jwks.json", self._jwks),
                Route("/.well-known/openid-configuration", discovery),
                Route("/.well-known/oauth-authorization-server", discovery),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        await self._app(scope, receive, send)

    async def _jwks(self, _: Request) -> Response:
        keys = [key.jwk for key in self._keys.published_keys()]
        return JSONResponse({"keys": keys}, headers={"Cache-Control": f"public, max-age={MAX_AGE}"})

    async def _token(self, request: Request) -> Response:
        try:
            return await self._issue(request)
        except OAuthError as error:
            return _error_response(error)

    async def _issue(self, request: Request) -> Response:
        asked = parse_token_request(parse_form(request.headers.get("content-type", ""), await _read_body(request)))
        facts = read_request(request.scope, ("/token",))._replace(authorization=[f"Bearer {asked.credential}"])
        try:
            allowed = await run_flow(self._pipeline.decide(facts))
            assert allowed.caller is not None
            identity = allowed.caller.identity
            granted = self._grants.decide(identity.service_account, asked.target, asked.scopes)
            issued = self._tokens.issue(identity, granted)
        except PodAuthError as denial:
            self._pipeline.record_denied(denial, facts)
            raise error_of_denial(denial, asked.source) from None
        allowed.recorder.record_allowed(identity, allowed.peer, lambda facts: facts, facts, 200)
        body: dict[str, Any] = {"access_token": issued.token}
        if asked.grant_type == TOKEN_EXCHANGE:
            body["issued_token_type"] = asked.issued_token_type
        body |= {"token_type": "Bearer", "expires_in": issued.expires_in, "scope": " ".join(granted.scopes)}
        return JSONResponse(body, headers=_NO_STORE)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise OAuthError("invalid_request", f"The body is longer than {MAX_BODY} bytes.", status=413)
    return bytes(body)


def _error_response(error: OAuthError) -> Response:
    return JSONResponse(error_body(error), error.status, headers={**_NO_STORE, **error.headers})
