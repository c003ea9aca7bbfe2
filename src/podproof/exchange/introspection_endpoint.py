"""`POST /introspect`: whether an issued token is still active (RFC 7662)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from podproof._request.asgi_request import read_request
from podproof._telemetry import metrics
from podproof.errors import InvalidToken, PodAuthError
from podproof.exchange.callers import NO_STORE, Caller, Callers
from podproof.exchange.denied import MalformedRequest, error_of_denial
from podproof.exchange.form_request import read_form
from podproof.exchange.grants import Grants
from podproof.exchange.issued_token import IssuedTokens
from podproof.exchange.oauth_error import OAuthError
from podproof.exchange.token_request import Form, parse_client_assertion

PATH = "/introspect"

_INACTIVE: Mapping[str, Any] = {"active": False}


class IntrospectionEndpoint:
    """Says whether a token is active: issued here, not expired, and its pod lives.

    Who asks is judged as everywhere, by its projected token, in the Authorization header or as client_assertion. It
    learns nothing of tokens for audiences that no grant lets it introspect.
    """

    def __init__(self, callers: Callers, grants: Callable[[], Grants], issued: IssuedTokens) -> None:
        self._callers = callers
        self._grants = grants
        self._issued = issued

    async def respond(self, request: Request) -> Response:
        """Return the response to a request."""
        facts = read_request(request.scope, (PATH,))
        deadline = self._callers.deadline()
        try:
            form = await read_form(request, self._callers.options.timeout)
            assertion, token = _read(form, authorized=bool(facts.authorization))
        except OAuthError as error:
            return self._callers.refuse(error, MalformedRequest(str(error)), facts)
        if assertion is not None:
            facts = facts._replace(authorization=[f"Bearer {assertion}"])
        try:
            caller = await self._callers.authenticate(facts)
            body = await self._introspect(token, caller, deadline)
        except PodAuthError as denial:
            return self._callers.refuse(
                error_of_denial(denial, "client_assertion" if assertion else "Authorization header"), denial, facts
            )
        caller.recorder.record_allowed(caller.known.identity, caller.peer, lambda one: one, facts, 200)
        metrics.introspections.labels("active" if body["active"] else "inactive").inc()
        return JSONResponse(body, headers=NO_STORE)

    async def _introspect(self, token: str, caller: Caller, deadline: float) -> Mapping[str, Any]:
        claims = self._issued.read(token)
        account = caller.known.identity.service_account
        if claims is None or claims["aud"] not in self._grants().introspectable(account):
            return _INACTIVE
        pod = self._issued.pod_of(claims)
        if pod is None:
            return _INACTIVE
        try:
            await self._callers.find_pod(pod, caller.peer, deadline)
        except InvalidToken:  # the pod has ended
            return _INACTIVE
        return _active(claims)


def _read(form: Form, *, authorized: bool) -> tuple[str | None, str]:
    """Return the client's assertion, None if it has none, and the token that it asks about."""
    if "token" not in form:
        raise OAuthError("invalid_request", "The parameter token is missing.")
    assertion = parse_client_assertion(form)
    if assertion is not None and authorized:
        raise OAuthError("invalid_request", "A client authenticates in one way, not in two.")
    return assertion, form["token"][0]


def _active(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"active": True, "token_type": "DPoP" if "cnf" in claims else "Bearer", **claims}
