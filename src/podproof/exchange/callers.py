"""Who calls an exchange: judged by the pipeline of a middleware, by a token in a form or in the header."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from typing import NamedTuple, TypeVar

from starlette.responses import JSONResponse, Response

from podproof._authentication.cached_identity import CachedIdentity, too_late
from podproof._authentication.pods import PodStore
from podproof._request.async_driver import run_flow, wait_for_future
from podproof._request.context import DecisionRecorder
from podproof._request.incoming import IncomingRequest
from podproof._request.pipeline import ReportedDenial, RequestPipeline
from podproof.errors import NoCredential, PodAuthError, Unavailable
from podproof.exchange.oauth_error import OAuthError
from podproof.exchange.pod_reference import PodReference

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 section 5.1

T = TypeVar("T")

FRESH = 1.0
"""Seconds for which a pod that was read is not looked at again before a token is issued to it."""


class Caller(NamedTuple):
    """A caller that is allowed here, the address that was compared, and what the decision is logged by."""

    known: CachedIdentity
    peer: str | None
    recorder: DecisionRecorder


class Callers:
    """Authenticates callers by a middleware's pipeline.

    `pods` knows the pods; it is None where an authenticator does not say.
    """

    def __init__(self, pipeline: RequestPipeline, pods: PodStore | None) -> None:
        self.options = pipeline.options
        self._pipeline = pipeline
        self._pods = pods

    def deadline(self) -> float:
        """Return until when a request that comes now has to be decided on, in monotonic seconds."""
        return self._pipeline.monotonic() + self.options.timeout

    async def authenticate(self, request: IncomingRequest) -> Caller:
        """Return who sends a request. Where nothing is enforced, a caller that is not known is denied all the same.

        Raises a PodAuthError.
        """
        allowed = await run_flow(self._pipeline.decide(request))
        if allowed.caller is None:
            raise allowed.recorder.error if isinstance(allowed.recorder, ReportedDenial) else NoCredential("no caller")
        return Caller(allowed.caller, allowed.peer, allowed.recorder)

    async def check_pod(self, caller: Caller, deadline: float) -> None:
        """Deny a caller whose pod has ended since it was read.

        A known caller is cached for a while, whatever becomes of the API server. A token outlives that: none is issued
        unless the pod is known to live now.

        Raises an InvalidToken, or Unavailable.
        """
        known, identity = caller.known, caller.known.identity
        if known.stale:
            denial = Unavailable("the API server cannot be asked, and what is known of the caller is old")
            raise denial.with_identity(identity, caller.peer)
        if self._pods is None or self._pipeline.monotonic() - known.read_at < FRESH:
            return
        reference = PodReference(identity.service_account, identity.pod.name, identity.pod.uid)
        try:
            await self.find_pod(reference, caller.peer, deadline)
        except PodAuthError as denial:
            raise denial.with_identity(identity, caller.peer) from None

    async def find_pod(self, pod: PodReference, peer: str | None, deadline: float) -> None:
        """Deny a pod that has ended. Raises an InvalidToken, or Unavailable."""
        pods = self._pods
        if pods is None:
            raise Unavailable("an authenticator of your own knows no pods")
        known = pods.last_known(pod.service_account, pod.name, pod.uid)
        if known is None or known.fresh_until < self._pipeline.monotonic():
            await self.run(lambda: pods.get(pod.service_account, pod.name, pod.uid, deadline), peer, deadline)

    async def run(self, call: Callable[[], T], peer: str | None, deadline: float) -> T:
        """Return the result of a call that may block, made in a thread for this peer. Raises what it raises."""
        threads = self._pipeline.threads.get()
        future = threads.submit(peer, call)
        await wait_for_future(future, deadline - self._pipeline.monotonic())
        return self._result_of(future)

    def refuse(self, error: OAuthError, denial: PodAuthError, request: IncomingRequest) -> Response:
        """Count and log a denial, and return the error that the client gets for it."""
        made = self._pipeline.make_denial(denial, request)
        unverified = self._pipeline.unverified_claims(denial, request)
        self._pipeline.record_denial(made, request, None, error.status, unverified)
        headers = {**NO_STORE, **error.headers}
        if error.status == HTTPStatus.UNAUTHORIZED:  # RFC 9110 section 11.6.1
            headers.setdefault("WWW-Authenticate", f'Bearer realm="{self.options.audience[0]}", error="{error.error}"')
        return JSONResponse(error.body(made.request_id), error.status, headers=headers)

    def _result_of(self, future: Future[T]) -> T:
        if not future.done():
            raise too_late(self.options.timeout)
        return future.result()
