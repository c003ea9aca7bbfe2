"""The way of one request, in order: exempt, credential, peer, authenticate, authorize, audit.

This is the one place that has the order of the checks. It waits for nothing itself: `RequestPipeline.decide` is a
generator that yields the futures it needs, and WSGI and ASGI drive it, each waiting in its own way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from podproof._authentication.cached_identity import AuthenticationResult, CachedIdentity, credential_key, too_late
from podproof._authentication.claims import unverified_names
from podproof._authentication.pod_address import canonical_address, is_within
from podproof._authorization.policy import Decision
from podproof._cache.fork_local import ForkLocal
from podproof._cache.review_threads import ReviewThreads
from podproof._request.credential import CredentialHeader, bearer_token
from podproof._request.flow import Allowed, Flow, Wait
from podproof._request.incoming import IncomingRequest
from podproof._request.paths import PathPatterns, is_unambiguous
from podproof._request.peer import find_peer
from podproof._request.problem import BEARER, Denial, HTTPResponse, problem_response
from podproof._telemetry import decision_log, metrics, traces
from podproof._telemetry.decision_log import NOTHING, RequestRecord, escape, trace_id
from podproof.errors import InvalidToken, MalformedCredential, NoCredential, NotAllowed, PodAuthError
from podproof.identity import PodIdentity
from podproof.options import Options

F = TypeVar("F")


class PipelineAuthenticator(Protocol):
    """The parts of an `Authenticator` that the pipeline uses; see there."""

    threads: ForkLocal[ReviewThreads]

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


class OtherCredentials(Protocol):
    """Tells other credentials than those of the cluster's pods from them."""

    def include(self, headers: Sequence[str], deadline: float, /) -> bool | Future[PodAuthError | None]:
        """Return True if these Authorization headers are such, or what to wait for before this is asked again."""


class ProofCheck(Protocol):
    """Checks what a request has to show besides its token."""

    @property
    def schemes(self) -> Mapping[str, str]:
        """The authentication schemes that are taken, each with the further parameters of its challenge."""

    def is_needed(self, caller: CachedIdentity, /) -> bool:
        """Return True if each request of a caller has to be checked."""

    def check(self, request: IncomingRequest, token: str, caller: CachedIdentity, /) -> None:
        """Deny a request that does not show it; raise a PodAuthError."""


Authorize = Callable[[PodIdentity, str, str, float], Future[Decision] | None]
"""A policy's `check`, by caller, method, path, and the request's deadline in monotonic seconds."""


class StatusCheck(Protocol):
    """Asks whoever has issued a token whether it is still active."""

    def start(self, request: IncomingRequest, token: str, deadline: float, /) -> Future[PodAuthError | None] | None:
        """Return the future of a denial or None, None where nobody is asked. Raises Overloaded."""


class RequestPipeline:
    """Decides on requests, for one app.

    `checks_paths` is False if a known credential from a known address is all that it takes. What `others`
    include is left to the app, as `passes_others` says.
    """

    def __init__(
        self,
        options: Options,
        authenticator: PipelineAuthenticator,
        authorize: Authorize | None,
        *,
        others: OtherCredentials | None = None,
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
        proof: ProofCheck | None = None,
        status: StatusCheck | None = None,
    ) -> None:
        self.monotonic = monotonic
        self.header = CredentialHeader(options.header)
        self.keep_authorization = options.keep_authorization
        self.enforces = options.enforce
        self.issuers = options.issuers
        self.compares_addresses = options.source_address != "off"
        # Where it is enforced, the allow-list is checked when a caller becomes known, and by this no more.
        self._reported_allow = None if options.enforce else options.allow
        self.checks_paths = bool(options.exempt) or any(
            one is not None for one in (authorize, self._reported_allow, status)
        )
        self.passes_others = others is not None
        # Of every request that reaches the app, but for those of exempt paths.
        self.takes_token_off = options.enforce and not options.keep_authorization and others is None
        self.get_known = authenticator.get_known if proof is None else self._get_known_without_proof
        if status is not None:
            self.get_known = _get_none  # the token is needed
        self.begin = authenticator.begin
        self.threads = authenticator.threads
        self.options = options
        self._authenticator = authenticator
        self._authorize = authorize
        self._exempt = PathPatterns(options.exempt) if options.exempt else None
        self._others = others
        self._new_id = new_id
        self._proof = proof
        self._status = status
        self.schemes = BEARER if proof is None else proof.schemes
        self._stale = StaleDecision(self)

    def decide(self, request: IncomingRequest, key: bytes | None = None, known: CachedIdentity | None = None) -> Flow:
        """Decide on a request.

        `key` is the `credential_key` of its token, `known` what `get_known` has found, each where it is known already.
        Where nothing is enforced, a denial is returned, as the recorder that logs it.
        """
        self.begin()
        deadline = self.monotonic() + self.options.timeout
        allowed = Allowed(None, request.remote, self)
        try:
            allowed = yield from self._authenticate(request, key, known, deadline)
            if allowed.caller is not None:
                yield from self._authorize_caller(allowed.caller.identity, allowed.peer, request, deadline)
        except PodAuthError as denial:
            if self.options.enforce:
                raise
            return allowed._replace(recorder=ReportedDenial(self, denial.without_traceback()))
        return allowed

    def _authenticate(
        self, request: IncomingRequest, key: bytes | None, known: CachedIdentity | None, deadline: float
    ) -> Flow:
        if self._exempt is not None and self._exempt.covers(request.path, request.raw_path, request.other_paths):
            return Allowed(None, request.remote, self)
        if request.overlong:
            raise MalformedCredential("the request has too many header lines")
        if not request.authorization and self.options.optional:
            return Allowed(None, request.remote, self)
        caller, peer = known, request.remote
        if caller is None and self._others and (yield from self._is_other(self._others, request, deadline)):
            if self._authorize is not None:
                raise NoCredential("the request has no credential of a pod of this cluster, which every rule needs")
            return Allowed(None, request.remote, self)
        if caller is None:
            token, peer = self._token(request), self._peer(request)
            key = key or credential_key(token)
            caller = self._authenticator.get_cached(token, peer, key)
            if caller is None:
                with traces.within_trace(request.traceparent):
                    future = self._authenticator.start(token, peer, deadline, key)
                result = yield from self._wait_for(future, deadline)
                caller = self._authenticator.check_peer(result, peer)
            if self._proof is not None:
                self._check_proof(self._proof, request, token, caller)
            if self._status is not None:
                yield from self._check_status(self._status, request, token, caller, deadline)
        return Allowed(caller, peer or request.remote, self._stale if caller.stale else self)

    def _is_other(
        self, others: OtherCredentials, request: IncomingRequest, deadline: float
    ) -> Generator[Wait, None, bool]:
        if request.authenticated and not request.authorization:
            return False  # it had one
        while isinstance(included := others.include(request.authorization, deadline), Future):
            failure = yield from self._wait_for(included, deadline)
            if failure is not None:
                raise failure.without_traceback()
        return included

    def record_allowed(
        self,
        identity: PodIdentity | None,
        peer: str | None,
        read: Callable[[F], IncomingRequest],
        source: F,
        status: int | None,
        *,
        stale: bool = False,
    ) -> None:
        """Count and log that a request was allowed; `peer` is the address that was compared, or the connection's.

        `status` is the app's, None if it sent no response; `stale` as in a `CachedIdentity`. The request is read from
        its source only if that is logged.
        """
        (metrics.allowed if identity else metrics.allowed_anonymous).inc()
        if decision_log.log.isEnabledFor(logging.INFO):
            request = read(source)
            request_id = trace_id(request.traceparent) or self._new_id()
            decision_log.record_allowed(identity, self._record(request, peer), request_id, status, stale=stale)

    def record_denied(self, error: PodAuthError, request: IncomingRequest) -> HTTPResponse:
        """Count and log a denial with its reason, and return the response, which does not have the reason."""
        denial = self.make_denial(error, request)
        self.record_denial(denial, request, None, denial.response.status, self.unverified_claims(error, request))
        return denial.response

    def make_denial(self, error: PodAuthError, request: IncomingRequest) -> Denial:
        """Return a denial with its response, for `record_denial`."""
        request_id = trace_id(request.traceparent) or self._new_id()
        return Denial(
            error,
            request_id,
            problem_response(error, realm=self.options.audience[0], request_id=request_id, schemes=self.schemes),
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
        record = self._record(request, error.peer or peer)
        decision_log.record_denied(error, record, denial.request_id, status, unverified)

    def record_would_deny(
        self, error: PodAuthError, request: IncomingRequest, peer: str | None, status: int | None
    ) -> None:
        """Count and log a denial that was not enforced; `status` is the app's."""
        metrics.decisions.labels("would-deny", error.code).inc()
        request_id = trace_id(request.traceparent) or self._new_id()
        record = self._record(request, error.peer or peer)
        unverified = self.unverified_claims(error, request)
        decision_log.record_denied(error, record, request_id, status, unverified, enforced=False)

    def unverified_claims(self, error: PodAuthError, request: IncomingRequest) -> Mapping[str, str]:
        """Return what a rejected token says about itself, nothing if it was not rejected or says nothing."""
        if isinstance(error, InvalidToken) and error.service_account is None:
            with suppress(PodAuthError):
                return unverified_names(self._bearer_token(request))
        return NOTHING

    def _bearer_token(self, request: IncomingRequest) -> str:
        return bearer_token(request.authorization, tuple(self.schemes), self.header.name)

    def _token(self, request: IncomingRequest) -> str:
        if request.authenticated and not request.authorization:
            raise NoCredential(
                "another PodAuthMiddleware around this one has authenticated the request and taken its token off: wrap "
                "the app once, or set keep_authorization on the outer one"
            )
        return self._bearer_token(request)

    def _get_known_without_proof(self, key: bytes, remote: str | None) -> CachedIdentity | None:
        """Return a known caller that needs no more than its token."""
        known = self._authenticator.get_known(key, remote)
        return None if known is None or self._proof is None or self._proof.is_needed(known) else known

    def _check_proof(self, proof: ProofCheck, request: IncomingRequest, token: str, caller: CachedIdentity) -> None:
        try:
            proof.check(request, token, caller)
        except PodAuthError as denial:
            raise denial.with_identity(caller.identity) from None

    def _check_status(
        self, status: StatusCheck, request: IncomingRequest, token: str, caller: CachedIdentity, deadline: float
    ) -> Generator[Wait, None, None]:
        try:
            future = status.start(request, token, deadline)
            denial = None if future is None else (yield from self._wait_for(future, deadline))
        except PodAuthError as overloaded:
            denial = overloaded
        if denial is not None:
            raise denial.without_traceback().with_identity(caller.identity)

    def _peer(self, request: IncomingRequest) -> str | None:
        if not self.compares_addresses:
            return None
        return find_peer(
            request.remote,
            self.options.trusted_proxies,
            x_forwarded_for=request.x_forwarded_for,
            forwarded=request.forwarded,
            others=request.address_headers,
            rewritten=request.rewritten,
            trailers=request.trailers,
        )

    def _record(self, request: IncomingRequest, peer: str | None) -> RequestRecord:
        """Return what is logged about a request; `peer` is the address that was compared, or the connection's.

        If none was compared, a trusted proxy's connection is one of the peer that the proxy names, where it does.
        """
        peer = canonical_address(peer or request.remote or "")
        trusted = self.options.trusted_proxies
        if trusted and peer is not None and is_within(peer, trusted):
            with suppress(PodAuthError):
                peer = self._peer(request) or peer
        method = "WEBSOCKET" if request.websocket else "GRPC" if request.grpc else request.method
        return RequestRecord(escape(method, 32), escape(request.full_path, 2048), peer)

    def _authorize_caller(
        self, identity: PodIdentity, peer: str | None, request: IncomingRequest, deadline: float
    ) -> Generator[Wait, None, None]:
        try:
            if self._reported_allow is not None:
                self._reported_allow.authorize(identity.service_account)
            if self._authorize is not None:
                yield from self._check_policy(self._authorize, identity, request, deadline)
        except PodAuthError as denial:
            raise denial.with_identity(identity, peer) from None

    def _check_policy(
        self, authorize: Authorize, identity: PodIdentity, request: IncomingRequest, deadline: float
    ) -> Generator[Wait, None, None]:
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

    def _wait_for(self, future: Future[Any], deadline: float) -> Generator[Wait, None, Any]:
        if not future.done():
            yield Wait(future, deadline - self.monotonic())
        return future.result() if future.done() else too_late(self.options.timeout)


class StaleDecision:
    """Logs a request of a caller that is `stale`, which the app may still deny."""

    def __init__(self, pipeline: RequestPipeline) -> None:
        self.record_allowed = partial(pipeline.record_allowed, stale=True)
        self.make_denial = pipeline.make_denial
        self.record_denial = pipeline.record_denial


class ReportedDenial:
    """Logs a request that would have been denied, and was let through to the app, which may still deny it."""

    def __init__(self, pipeline: RequestPipeline, error: PodAuthError) -> None:
        self._pipeline = pipeline
        self.error = error
        self.make_denial = pipeline.make_denial
        self.record_denial = pipeline.record_denial

    def record_allowed(
        self,
        _: PodIdentity | None,
        peer: str | None,
        read: Callable[[F], IncomingRequest],
        source: F,
        status: int | None,
    ) -> None:
        """Count and log the denial."""
        self._pipeline.record_would_deny(self.error, read(source), peer, status)


def _get_none(_: bytes, __: str | None) -> None:
    """Return None: no caller is known by its credential alone."""
