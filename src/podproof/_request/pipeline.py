"""The way of one request, in order: exempt, credential, peer, authenticate, authorize, audit.

This is the one place that has the order of the checks. It waits for nothing itself: `RequestPipeline.decide` is a
generator that yields the futures it needs, and WSGI and ASGI drive it, each waiting in its own way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from podproof._authentication.cached_identity import AuthenticationResult, CachedIdentity, credential_key, too_late
from podproof._authentication.claims import unverified_names
from podproof._authentication.pod_address import canonical_address
from podproof._authorization.policy import Decision
from podproof._request.credential import bearer_token
from podproof._request.incoming import IncomingRequest
from podproof._request.paths import ExemptPaths, is_unambiguous
from podproof._request.peer import find_peer
from podproof._request.problem import Denial, HTTPResponse, problem_response
from podproof._telemetry import decision_log, metrics, traces
from podproof._telemetry.decision_log import NOTHING, RequestRecord, escape, trace_id
from podproof.errors import InvalidToken, MalformedCredential, NoCredential, NotAllowed, PodAuthError
from podproof.identity import PodIdentity
from podproof.options import Options

F = TypeVar("F")


class PipelineAuthenticator(Protocol):
    """The parts of an `Authenticator` that the pipeline uses; see there."""

    def begin(self) -> None:
        """Start what is checked once a process."""

    def get_known(self, key: bytes, remote: str | None, /) -> CachedIdentity | None:
        """Return a caller whose credential and address were accepted before."""

    def get_cached(self, token: str, peer: str | None, key: bytes, /) -> CachedIdentity | None:
        """Return a cached caller if it calls from its pod."""

    def start(self, token: str, peer: str | None, deadline: float, key: bytes, /) -> Future[AuthenticationResult]:
        """Return the future of a token's review."""

    def check_peer(self, result: AuthenticationResult, peer: str | None, /) -> CachedIdentity:
        """Return a result's caller if it calls from its pod."""


Authorize = Callable[[PodIdentity, str, str, float], Future[Decision] | None]
"""A policy's `check`, by caller, method, path, and the request's deadline in monotonic seconds."""


class Wait(NamedTuple):
    """What a driver has to wait for: a future, for so many seconds at most. It need not look at the result."""

    future: Future[Any]
    seconds: float


class Allowed(NamedTuple):
    """Who a request is allowed for, None for an anonymous caller, and the address compared, or the connection's."""

    caller: CachedIdentity | None
    peer: str | None


Flow = Generator[Wait, None, Allowed]
"""Yields what to wait for; returns who is allowed; raises a PodAuthError to deny."""


class RequestPipeline:
    """Decides on requests, for one app.

    `checks_paths` is False if a known credential from a known address is all that it takes.
    """

    def __init__(
        self,
        options: Options,
        authenticator: PipelineAuthenticator,
        authorize: Authorize | None,
        *,
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.monotonic = monotonic
        self.keep_authorization = options.keep_authorization
        self.compares_addresses = options.source_address != "off"
        self.checks_paths = bool(options.exempt) or authorize is not None
        self.get_known = authenticator.get_known
        self.begin = authenticator.begin
        self._options = options
        self._authenticator = authenticator
        self._authorize = authorize
        self._exempt = ExemptPaths(options.exempt) if options.exempt else None
        self._new_id = new_id

    def decide(self, request: IncomingRequest, key: bytes | None = None, known: CachedIdentity | None = None) -> Flow:
        """Decide on a request.

        `key` is the `credential_key` of its token, `known` what `get_known` has found, each where it is known already.
        """
        self.begin()
        if self._exempt is not None and self._exempt.cover(request.path, request.raw_path, request.other_paths):
            return Allowed(None, request.remote)
        if request.overlong:
            raise MalformedCredential("the request has too many header lines")
        if not request.authorization and self._options.optional:
            return Allowed(None, request.remote)
        caller, peer = known, request.remote
        deadline = self.monotonic() + self._options.timeout
        if caller is None:
            token, peer = self._token(request), self._peer(request)
            key = key or credential_key(token)
            caller = self._authenticator.get_cached(token, peer, key)
            if caller is None:
                with traces.within_trace(request.traceparent):
                    future = self._authenticator.start(token, peer, deadline, key)
                result = yield from self._wait_for(future, deadline)
                caller = self._authenticator.check_peer(result, peer)
        if self._authorize is not None:
            yield from self._check_policy(self._authorize, caller.identity, peer, request, deadline)
        return Allowed(caller, peer or request.remote)

    def record_allowed(
        self,
        identity: PodIdentity | None,
        peer: str | None,
        read: Callable[[F], IncomingRequest],
        source: F,
        status: int | None,
    ) -> None:
        """Count and log that a request was allowed; `peer` is the address that was compared, or the connection's.

        `status` is the app's, None if it sent no response. The request is read from its source only if that is logged.
        """
        (metrics.allowed if identity else metrics.allowed_anonymous).inc()
        if decision_log.log.isEnabledFor(logging.INFO):
            request = read(source)
            request_id = trace_id(request.traceparent) or self._new_id()
            decision_log.record_allowed(identity, _record(request, peer), request_id, status)

    def record_denied(self, error: PodAuthError, request: IncomingRequest) -> HTTPResponse:
        """Count and log a denial with its reason, and return the response, which does not have the reason."""
        denial = self.make_denial(error, request)
        unverified = NOTHING
        if isinstance(error, InvalidToken) and error.service_account is None:
            with suppress(PodAuthError):
                unverified = unverified_names(bearer_token(request.authorization))
        self.record_denial(denial, request, None, denial.response.status, unverified)
        return denial.response

    def make_denial(self, error: PodAuthError, request: IncomingRequest) -> Denial:
        """Return a denial with its response, for `record_denial`."""
        request_id = trace_id(request.traceparent) or self._new_id()
        return Denial(
            error, request_id, problem_response(error, realm=self._options.audience[0], request_id=request_id)
        )

    def record_denial(
        self,
        denial: Denial,
        request: IncomingRequest,
        peer: str | None,
        status: int,
        unverified: Mapping[str, str] = NOTHING,
    ) -> None:
        """Count and log a denial with its reason, the status that was sent, and what a rejected token says."""
        error = denial.error
        metrics.decisions.labels("denied", error.code).inc()
        decision_log.record_denied(error, _record(request, error.peer or peer), denial.request_id, status, unverified)

    def _token(self, request: IncomingRequest) -> str:
        if request.authenticated and not request.authorization:
            raise NoCredential(
                "another PodAuthMiddleware around this one has authenticated the request and taken its token off: wrap "
                "the app once, or set keep_authorization on the outer one"
            )
        return bearer_token(request.authorization)

    def _peer(self, request: IncomingRequest) -> str | None:
        if not self.compares_addresses:
            return None
        return find_peer(
            request.remote,
            self._options.trusted_proxies,
            x_forwarded_for=request.x_forwarded_for,
            forwarded=request.forwarded,
            others=request.address_headers,
            rewritten=request.rewritten,
            trailers=request.trailers,
        )

    def _check_policy(
        self, authorize: Authorize, identity: PodIdentity, peer: str | None, request: IncomingRequest, deadline: float
    ) -> Generator[Wait, None, None]:
        try:
            if not is_unambiguous(request.path, request.raw_path):
                raise NotAllowed("routers may read this path in different ways, so no rule covers it")
            for path in (request.path, *request.other_paths):
                # Some frameworks route "get" as GET.
                with traces.within_trace(request.traceparent):
                    future = authorize(identity, request.method.upper(), path, deadline)
                if future is not None:
                    decision = yield from self._wait_for(future, deadline)
                    if isinstance(decision, PodAuthError):
                        raise decision.without_traceback()
        except PodAuthError as denial:
            raise denial.with_identity(identity, peer) from None

    def _wait_for(self, future: Future[Any], deadline: float) -> Generator[Wait, None, Any]:
        if not future.done():
            yield Wait(future, deadline - self.monotonic())
        return future.result() if future.done() else too_late(self._options.timeout)


def _record(request: IncomingRequest, peer: str | None) -> RequestRecord:
    peer = canonical_address(peer or request.remote or "")
    method = "WEBSOCKET" if request.websocket else request.method
    return RequestRecord(escape(method, 32), escape(request.full_path, 2048), peer)
