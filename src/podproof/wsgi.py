"""`PodAuthMiddleware` for WSGI apps: Flask, Django, Bottle, Pyramid, Falcon."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Unpack

from podproof._authorization.policy import Decision
from podproof._request.context import IDENTITY, current_request, forget_caller
from podproof._request.pipeline import MiddlewareOptions, RequestPipeline
from podproof._request.problem import Answer
from podproof._telemetry.decision_log import RequestRecord as Request
from podproof.errors import IdentityEnded, PodAuthError
from podproof.identity import PodIdentity

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["IDENTITY", "PodAuthMiddleware"]

_JUDGED = ("HTTP_AUTHORIZATION", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED")


class PodAuthMiddleware:
    """Lets in only requests whose caller is known, and says who it is.

    Sets `environ["podproof.identity"]` to the caller's `PodIdentity`, `REMOTE_USER` to its username and `AUTH_TYPE` to
    `Bearer`; on a request that is open to all the first is None. The Authorization header is taken off. Options are
    those of `podproof.options.Options`; instead of them an `authenticator` may be given.

    When the caller's token expires, a response that is still being sent is broken off. A PodAuthError that the app
    raises before it answers is answered here.

    Raises ConfigurationError.
    """

    def __init__(self, app: WSGIApplication, **given: Unpack[MiddlewareOptions]) -> None:
        self.app = app
        self._gate = RequestPipeline(given)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request."""
        try:
            identity = self._identify(environ)
        except PodAuthError as refusal:
            return self._refuse(refusal, environ, start_response)
        if not self._gate.keep_authorization:
            environ.pop("HTTP_AUTHORIZATION", None)
        environ[IDENTITY] = identity
        if identity is not None:
            environ["REMOTE_USER"] = identity.identity
            environ["AUTH_TYPE"] = "Bearer"
        current_request.set((identity, partial(self._answer, environ)))
        try:
            body = self.app(environ, start_response)
        except PodAuthError as refusal:
            forget_caller()
            return self._refuse(refusal, environ, start_response)
        except BaseException:
            forget_caller()
            raise
        file_wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
            forget_caller()  # the server sends the file itself, if it gets the wrapper as it is (PEP 3333)
            return body
        return _Body(body, self._gate.authenticator.seconds_left(identity) if identity else None)

    def _identify(self, environ: WSGIEnvironment) -> PodIdentity | None:
        gate = self._gate
        path, raw_path = (environ.get("PATH_INFO", ""), _raw_path(environ)) if gate.judges_paths else ("", None)
        # ProxyFix keeps what it replaces.
        original = environ.get("werkzeug.proxy_fix.orig", environ)
        # WSGI servers join several occurrences of a header with commas, in order.
        authorization, x_forwarded_for, forwarded = [
            () if value is None else (value,) for value in map(environ.get, _JUDGED)
        ]
        question = gate.question(
            path=path,
            raw_path=raw_path,
            authorization=authorization,
            remote=original.get("REMOTE_ADDR"),
            x_forwarded_for=x_forwarded_for,
            forwarded=forwarded,
            rewritten=False,
        )
        identity = peer = None
        if question is not None:
            token, peer = question
            identity = gate.authenticator.recall(token, peer) or gate.authenticator.identify(token, peer)
            if gate.judges_paths:
                flight = gate.permit(identity, peer, method=environ["REQUEST_METHOD"], path=path, raw_path=raw_path)
                if flight is not None:
                    gate.conclude(_wait(flight, gate.authenticator.options.timeout), identity, peer)
        gate.admit(identity, peer, _request, environ)
        return identity

    def _answer(self, environ: WSGIEnvironment, refusal: PodAuthError) -> Answer:
        return self._gate.refuse(refusal, _request(environ))

    def _refuse(
        self, refusal: PodAuthError, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        status, headers, body = self._answer(environ, refusal)
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _wait(flight: Future[Decision], seconds: float) -> Decision | None:
    """Wait for a verdict; None when the time is up."""
    try:
        return flight.result(seconds)
    except TimeoutError:
        return None


def _request(environ: WSGIEnvironment) -> Request:
    return Request(
        method=environ["REQUEST_METHOD"],
        path=environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        remote=environ.get("REMOTE_ADDR"),
        traceparent=environ.get("HTTP_TRACEPARENT"),
    )


class _Body:
    """An app's answer as it is sent: broken off when the caller's token expires, `seconds` from now."""

    def __init__(self, body: Iterable[bytes], seconds: float | None) -> None:
        self._body = body
        self._chunks = iter(body)
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        if time.monotonic() >= self._end:
            raise IdentityEnded("the caller's token has expired during the response")
        return chunk

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            forget_caller()


def _raw_path(environ: WSGIEnvironment) -> str | None:
    """Return the path as it was sent, before decoding; gunicorn and Werkzeug tell, the standard does not."""
    target: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    return None if target is None else target.partition("?")[0]
