"""`as_caller`: a caller for code that a test calls itself, without a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from podproof._request.context import CurrentRequest, current_request
from podproof._request.incoming import IncomingRequest
from podproof._request.problem import BEARER, Denial, problem_response
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity
from podproof.testing._emulator.objects import EmulatedPod
from podproof.testing._forced_callers import identity_of

_REQUEST = IncomingRequest("GET", path="/", raw_path="/", full_path="/", remote=None)


@contextmanager
def as_caller(pod: str | EmulatedPod | PodIdentity) -> Iterator[PodIdentity]:
    """Let the code in a `with` block have this caller, without a request: functions, tools, handlers that a test calls.

    `podproof.current_caller()` is the identity that is returned, and `podproof.require` compares it, also in tasks that
    begin in the block, as those of an MCP client do that is handed its server. `pod` is `namespace/name`, a pod of an
    emulated cluster, or an identity. Nothing is logged.
    """
    request = CurrentRequest()
    request.identity = identity = identity_of(pod)
    request.recorder, request.read, request.source, request.peer = _NoLog(), lambda _: _REQUEST, None, None
    request.denial, request.settled = None, True
    before = current_request.set(request)
    try:
        yield identity
    finally:
        request.denial = None
        request.end(None)
        current_request.reset(before)


class _NoLog:
    """Makes denials, and logs no decision."""

    def make_denial(self, error: PodAuthError, _: IncomingRequest) -> Denial:
        return Denial(error, "", problem_response(error, realm="test", request_id="", schemes=BEARER))

    def record_allowed(self, *_: object) -> None:
        """Log nothing."""

    def record_denial(self, *_: object) -> None:
        """Log nothing."""
