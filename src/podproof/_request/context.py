"""The caller of the current request: on the request itself, and for code that is not handed the request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, Protocol

from podproof._request.incoming import IncomingRequest
from podproof._request.problem import Denial, HTTPResponse
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity

IDENTITY = "podproof.identity"
"""The key of the caller in a WSGI environ and an ASGI scope, where no client can write."""

NOT_WRAPPED = "this request did not pass through PodAuthMiddleware; wrap the app with it"

_CHALLENGE = frozenset({"www-authenticate", b"www-authenticate"})


class DecisionRecorder(Protocol):
    """The parts of a `RequestPipeline` that log decisions; see there."""

    def record_allowed(
        self,
        identity: PodIdentity | None,
        peer: str | None,
        read: Callable[[Any], IncomingRequest],
        source: Any,
        status: int | None,
        /,
    ) -> None:
        """Log that a request was allowed."""

    def make_denial(self, error: PodAuthError, request: IncomingRequest, /) -> Denial:
        """Return a denial with its response."""

    def record_denial(self, denial: Denial, request: IncomingRequest, peer: str | None, status: int, /) -> None:
        """Log a denial."""


class CurrentRequest:
    """The request that is being handled, until it ends.

    Servers and frameworks copy contexts into tasks, threads, timers and the next request of a kept connection
    (python/cpython#140947), so the context variable holds this object, which is emptied when its request ends: a copy
    that outlives the request has no caller any more, and keeps nothing of it alive.

    Each request is one record. The app behind the middleware can still deny it (`require`), so it is `settle`d when the
    response begins. `source` is the environ or scope, `read` what reads it. `peer` is the address that was compared, or
    the connection's, which an app can replace in the source.
    """

    __slots__ = ("denial", "identity", "peer", "read", "recorder", "settled", "source")

    identity: PodIdentity | None
    denial: Denial | None
    peer: str | None
    read: Callable[[Any], IncomingRequest]
    recorder: DecisionRecorder | None
    settled: bool
    source: Any

    def deny(self, error: PodAuthError) -> Denial:
        """Deny the request from within the app. It is logged when the response begins.

        Raises RuntimeError if the request has ended.
        """
        if self.recorder is None:
            raise RuntimeError(NOT_WRAPPED)
        self.denial = self.recorder.make_denial(error, self.read(self.source))
        return self.denial

    def replacement(self, status: int, headers: Iterable[tuple[Any, Any]]) -> HTTPResponse | None:
        """Return the response to send in the place of an app's, None for the app's own.

        A framework that does not know a denial makes a 5xx of it, and one that does a response with its challenge. Any
        other response is the app's own decision.
        """
        denial = self.denial
        if denial is None or status < HTTPStatus.BAD_REQUEST:
            return None
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and not any(name.lower() in _CHALLENGE for name, _ in headers):
            return None
        return denial.response

    def settle(self, status: int | None) -> None:
        """Log the decision, once, with the status of the response, None if there is none.

        A WebSocket that is denied after it was accepted has a second record.
        """
        recorder, denial = self.recorder, self.denial
        if recorder is None or (self.settled and denial is None):
            return
        self.settled = True
        if denial is None or (status is not None and status < HTTPStatus.BAD_REQUEST):
            recorder.record_allowed(self.identity, self.peer, self.read, self.source, status)
        else:
            self.denial = None
            recorder.record_denial(denial, self.read(self.source), self.peer, status or denial.response.status)

    def end(self, status: int | None) -> None:
        """Settle it, and empty it: a context that still holds it has no caller from now on."""
        if not self.settled:
            self.settle(status)
        self.identity = self.denial = self.recorder = self.source = None


current_request: ContextVar[CurrentRequest | None] = ContextVar("podproof.request", default=None)


def get_caller(request: Mapping[str, Any]) -> PodIdentity | None:
    """Return the caller of a WSGI environ or an ASGI scope, None for an anonymous one.

    Raises RuntimeError if the request did not pass through PodAuthMiddleware.
    """
    try:
        identity: PodIdentity | None = request[IDENTITY]
    except KeyError:
        raise RuntimeError(NOT_WRAPPED) from None
    return identity


def current_caller() -> PodIdentity | None:
    """Return the caller of the current request, None outside a request and for an anonymous caller.

    The caller ends with the request: a task or thread that works on after the response has to be handed the identity.
    """
    request = current_request.get()
    return None if request is None else request.identity


def deny(error: PodAuthError) -> HTTPResponse:
    """Deny the current request, and return the middleware's own response, for a framework to send.

    The denial is logged when a response begins; an app that sends one below 400 has allowed the request after all.

    Raises RuntimeError if the request did not pass through PodAuthMiddleware, or has ended.
    """
    request = current_request.get()
    if request is None:
        raise RuntimeError(NOT_WRAPPED)
    return request.deny(error).response
