"""`POST /token`: from a form to an issued token (RFC 6749, RFC 7523, RFC 8693)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from podproof._request.asgi_request import read_request
from podproof._request.incoming import IncomingRequest
from podproof._telemetry import metrics
from podproof._telemetry.decision_log import record_issued
from podproof.errors import PodAuthError
from podproof.exchange.callers import NO_STORE, Caller, Callers
from podproof.exchange.denied import MalformedRequest, WrongClient, error_of_denial
from podproof.exchange.form_request import read_form, refuse_authorization
from podproof.exchange.grants import Granted, Grants
from podproof.exchange.nonces import Nonces
from podproof.exchange.oauth_error import OAuthError
from podproof.exchange.token_issuer import IssuedToken, TokenIssuer
from podproof.exchange.token_request import TOKEN_EXCHANGE, TokenRequest, parse_token_request
from podproof.exchange.user_token import UserToken
from podproof.exchange.user_tokens import UserTokens

PATH = "/token"


class TokenEndpoint:
    """Issues tokens: the pod is judged first, then the user for whom it acts, then what it asks for.

    `verify_proof` returns the thumbprint of the key that the lines of a DPoP header prove the possession of. With
    `nonces`, which it checks, each response brings the one for the next proof (RFC 9449 section 8.2).
    """

    def __init__(
        self,
        callers: Callers,
        grants: Callable[[], Grants],
        tokens: TokenIssuer,
        users: UserTokens,
        verify_proof: Callable[[Sequence[str]], str],
        *,
        needs_proof: bool,
        nonces: Nonces | None = None,
    ) -> None:
        self._callers = callers
        self._grants = grants
        self._tokens = tokens
        self._users = users
        self._verify_proof = verify_proof
        self._needs_proof = needs_proof
        self._nonces = nonces

    async def respond(self, request: Request) -> Response:
        """Return the response to a request."""
        facts = read_request(request.scope, (PATH,))
        deadline = self._callers.deadline()
        try:
            refuse_authorization(request)
            asked = parse_token_request(await read_form(request, self._callers.options.timeout))
        except OAuthError as error:
            return self._callers.refuse(error, MalformedRequest(str(error)), facts)
        facts = facts._replace(authorization=[f"Bearer {asked.credential}"])
        source = asked.source
        try:
            caller = await self._callers.authenticate(facts)
            await self._callers.check_pod(caller, deadline)
            source = asked.user_source
            user = await self._verify_user(asked, caller, deadline)
            source = asked.source
            granted, issued = self._issue(request, asked, caller, user)
        except PodAuthError as denial:
            return self._callers.refuse(error_of_denial(denial, source), denial, facts)
        self._record(caller, facts, granted, issued, user)
        nonce = {} if self._nonces is None else {"DPoP-Nonce": self._nonces.current()}
        return JSONResponse(_body(asked, granted, issued), headers={**NO_STORE, **nonce})

    async def _verify_user(self, asked: TokenRequest, caller: Caller, deadline: float) -> UserToken | None:
        token, identity = asked.user_token, caller.known.identity
        if token is None:
            return None
        try:
            return await self._callers.run(
                lambda: self._users.verify(token, identity.identity, deadline), caller.peer, deadline
            )
        except PodAuthError as denial:
            raise denial.with_identity(identity, caller.peer) from None

    def _issue(
        self, request: Request, asked: TokenRequest, caller: Caller, user: UserToken | None
    ) -> tuple[Granted, IssuedToken]:
        identity = caller.known.identity
        try:
            if asked.client_id not in (None, identity.identity):
                raise WrongClient("the client_id is another one than the caller's")
            proofs = request.headers.getlist("dpop")
            jkt = self._verify_proof(proofs) if proofs or self._needs_proof else None
            granted = self._grants().decide(
                identity.service_account, asked.target, asked.scopes, None if user is None else user.issuer
            )
            return granted, self._tokens.issue(identity, granted, user=user, jkt=jkt)
        except PodAuthError as denial:
            raise denial.with_identity(identity, caller.peer) from None

    def _record(
        self, caller: Caller, facts: IncomingRequest, granted: Granted, issued: IssuedToken, user: UserToken | None
    ) -> None:
        identity = caller.known.identity
        caller.recorder.record_allowed(identity, caller.peer, lambda request: request, facts, 200)
        metrics.issued_tokens.labels(granted.audience).inc()
        record_issued(
            identity, granted.audience, granted.scopes, issued.token_id, None if user is None else user.issuer
        )


def _body(asked: TokenRequest, granted: Granted, issued: IssuedToken) -> dict[str, Any]:
    """Return the JSON of a response (RFC 6749 section 5.1, RFC 8693 section 2.2.1)."""
    body: dict[str, Any] = {
        "access_token": issued.token,
        "token_type": issued.token_type,
        "expires_in": issued.expires_in,
    }
    if asked.grant_type == TOKEN_EXCHANGE:
        body["issued_token_type"] = asked.issued_token_type
    if granted.scopes:
        body["scope"] = " ".join(granted.scopes)
    return body
