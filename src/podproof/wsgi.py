"""`PodAuthMiddleware` for WSGI apps: Flask, Django, Bottle, Pyramid, Falcon."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "wsgi")

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any, Unpack
from wsgiref.util import FileWrapper

from podproof._request.context import IDENTITY, CurrentRequest, DecisionRecorder, current_request
from podproof._request.problem import HTTPResponse
from podproof._request.routing import Routing
from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof._request.wsgi_body import LimitedInput
from podproof._request.wsgi_request import LONGEST, UNUSUAL, decide, read_request
from podproof._telemetry import traces
from podproof.errors import IdentityEnded, PodAuthError
from podproof.options import signature

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from podproof._authentication.cached_identity import CachedIdentity
    from podproof._request.pipeline import RequestPipeline

__all__ = ["IDENTITY", "PodAuthMiddleware"]

ENDED = "the caller's token has expired during the response"


class PodAuthMiddleware:
    """Allows only requests of authenticated pods, and tells the app which pod is calling.

    Sets `environ["podproof.identity"]` to the caller's `PodIdentity`, `REMOTE_USER` to its username and `AUTH_TYPE` to
    `Bearer`, and takes the header with the token off; on an exempt request the identity is None, and the header stays.
    Options are those of `podproof.options.Options`, or PODPROOF_<NAME> in the environment; `authenticator` takes the
    place of the one that asks the API server.

    When the caller's token expires, no more of the request's body is read, and a response that is still being sent is
    broken off, but never before its first chunk. A PodAuthError that the app raises before it starts a response becomes
    the response.

    Raises ConfigurationError.
    """

    __signature__ = signature()

    def __init__(self, app: WSGIApplication, **given: Unpack[MiddlewareOptions]) -> None:
        self.app = app
        self._routing = Routing(app)
        self._pipeline = pipeline = self._build_pipeline(given)
        self._key = pipeline.header.key
        self._read = partial(read_request, header=pipeline.header)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request."""
        pipeline = self._pipeline
        recorder: DecisionRecorder = pipeline
        caller = key = None
        peer = environ.get("REMOTE_ADDR")
        authorization = environ.get(self._key)
        if authorization and len(authorization) <= LONGEST and UNUSUAL.isdisjoint(environ):
            key = sha256(authorization.encode("latin-1", "replace")).digest()
            caller = pipeline.get_known(key, peer if pipeline.compares_addresses else None)
        if caller is None or pipeline.checks_paths:
            try:
                caller, peer, recorder = decide(pipeline, self._routing, environ, key, caller)
            except PodAuthError as denial:
                response = pipeline.record_denied(denial, self._read(environ))
                start_response(*_status_and_headers(response))
                return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]
        return self._run(caller, peer, recorder, environ, start_response)

    def _build_pipeline(self, given: MiddlewareOptions) -> RequestPipeline:
        """Return the pipeline. What a subclass has to validate, it validates here, where an error stops the start."""
        return build_pipeline(given)

    def _run(
        self,
        caller: CachedIdentity | None,
        peer: str | None,
        recorder: DecisionRecorder,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        identity, ends_at = None, math.inf
        if caller is not None:
            identity = caller.identity
            ends_at = time.monotonic() + caller.ends_at - self._pipeline.monotonic()
            if "wsgi.input" in environ:
                environ["wsgi.input"] = LimitedInput(given=environ["wsgi.input"], ends_at=ends_at)
            # In the place of the server's own, by which it would send a file to its end. gunicorn needs the key.
            environ["wsgi.file_wrapper"] = FileWrapper
            if not self._pipeline.keep_authorization:
                environ.pop(self._key, None)
            environ["REMOTE_USER"] = caller.username
            environ["AUTH_TYPE"] = "Bearer"
            if traces.INSTALLED and traces.get_current_span().is_recording():
                traces.set_caller_attributes(identity)
        environ[IDENTITY] = identity
        request = CurrentRequest()
        request.identity = identity
        request.recorder, request.read, request.source, request.peer = recorder, self._read, environ, peer
        request.denial, request.settled = None, False
        current_request.set(request)
        response = _LimitedResponse()
        response.request, response.ends_at, response.start_server = request, ends_at, start_response
        try:
            response.body = self.app(environ, response.start)
            file_wrapper = environ.get("wsgi.file_wrapper")
            may_send_file = caller is None and response.own is None
            if may_send_file and isinstance(file_wrapper, type) and isinstance(response.body, file_wrapper):
                # The server sends the file itself, if it gets the wrapper as it is (PEP 3333).
                response.begin()
                request.end(response.status)
                current_request.set(None)
                return response.body
            response.chunks = iter(response.body)
            if not isinstance(response.body, list | tuple):
                response.take_first()
            if not response.begun:  # by write()
                response.begin()
        except BaseException as error:
            if isinstance(error, PodAuthError) and not response.begun:
                response.own = request.deny(error).response
                response.begin()
                return response
            if hasattr(response.body, "close"):
                response.body.close()
            request.end(HTTPStatus.INTERNAL_SERVER_ERROR if isinstance(error, Exception) else None)
            current_request.set(None)
            raise
        return response


class _LimitedResponse:
    """An app's response as it is sent, until a moment in monotonic seconds; with it the request ends.

    `own` is the middleware's own response, which takes the place of the app's if that is a denial. The server's
    `start_response` is called, and the request settled, once the first chunk is there: until then the app can still
    deny. That is before the app's iterable is returned, since granian has read the status by then.
    """

    # Set from outside, since an __init__ would be one more call for each request.
    request: CurrentRequest
    ends_at: float
    start_server: StartResponse
    body: Iterable[bytes] = ()
    chunks: Iterator[bytes] = iter(())
    own: HTTPResponse | None = None
    status: int | None = None
    started: tuple[str, list[tuple[str, str]]] | None = None
    begun = sent = False
    server_write: Callable[[bytes], object]

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        """Start the response: the `start_response` of the app."""
        if self.begun:
            return self.start_server(status, headers, exc_info)  # raises what the app could not do
        self.status, self.started = int(status[:3]), (status, headers)
        if self.request.denial is not None:
            self.own = self.request.replacement(self.status, headers)
        return self.write

    def write(self, data: bytes) -> object:
        """Send a part of the body at once, as apps from before PEP 333 do."""
        if self.own is not None:
            return None
        if not self.begun:
            self.begin()
        if self.sent and time.monotonic() >= self.ends_at:
            raise IdentityEnded(ENDED)
        self.sent = self.sent or bool(data)
        return self.server_write(data)

    def begin(self) -> None:
        """Start the server's response, and settle the request."""
        self.begun = True
        request = self.request
        if self.own is not None:
            self.status, self.started = self.own.status, _status_and_headers(self.own)
            self.chunks = iter([] if request.source["REQUEST_METHOD"] == "HEAD" else [self.own.body])
        if self.started is not None:
            self.server_write = self.start_server(*self.started)
        if request.denial is None and request.recorder is not None:  # as request.settle, in one call less
            request.settled = True
            request.recorder.record_allowed(request.identity, request.peer, request.read, request.source, self.status)
        else:
            request.settle(self.status)

    def take_first(self) -> None:
        """Take the first chunk out of the app, which may start the response or deny the request for it."""
        first = next(self.chunks, None)
        if first is not None:
            self.chunks = chain([first], self.chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self.chunks)
        if self.sent and time.monotonic() >= self.ends_at:
            raise IdentityEnded(ENDED)
        if chunk:
            self.sent = True  # a response is never broken off before its first chunk
        return chunk

    def close(self) -> None:
        try:
            if hasattr(self.body, "close"):
                self.body.close()
        finally:
            request = self.request
            request.end(self.status)
            if current_request.get() is request:  # not so where the body is closed in another thread
                current_request.set(None)


def _status_and_headers(response: HTTPResponse) -> tuple[str, list[tuple[str, str]]]:
    return f"{response.status} {HTTPStatus(response.status).phrase}", response.headers
