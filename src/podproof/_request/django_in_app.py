"""Django's requests that are judged inside the app: by the middleware of `MIDDLEWARE` and REST framework's class."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from podproof._request import wsgi_request
from podproof._request.context import IDENTITY
from podproof._request.credential import CredentialHeader
from podproof._request.flow import Allowed, Flow
from podproof._request.in_app import InAppRequest, LimitedChunks, enter, limit_chunks
from podproof._request.incoming import IncomingRequest
from podproof._request.problem import HTTPResponse
from podproof._request.routing import Routing
from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity


def options_in_settings() -> MiddlewareOptions:
    """Return the dictionary `PODPROOF` of the project's settings, empty if there is none."""
    return cast("MiddlewareOptions", getattr(settings, "PODPROOF", {}))


class InAppAuthenticator:
    """Decides on requests of a project, whose handler is found behind `app`. Raises ConfigurationError."""

    def __init__(self, given: MiddlewareOptions, app: object = None) -> None:
        self.pipeline = build_pipeline(given)
        self._routing = Routing(app)

    def flow(self, request: HttpRequest) -> Flow:
        """Return the flow that decides on a request, for a driver."""
        source, checks_paths = source_of(request), self.pipeline.checks_paths
        paths: tuple[str, ...] = ("",)
        if checks_paths and is_asgi(request):
            paths = self._routing.read_asgi(source["path"], source.get("root_path", ""))
        elif checks_paths:
            paths = self._routing.read_wsgi(source["PATH_INFO"])
        return self.pipeline.decide(self._reader(request)(source, paths))

    def enter(self, request: HttpRequest, allowed: Allowed) -> InAppRequest:
        """Return a request that is allowed, as the current one, with its caller, and without its token."""
        entered = enter(self.pipeline, allowed, source_of(request), self._reader(request))
        self._attach(request, allowed)
        return entered

    def attach_and_log(self, request: HttpRequest, allowed: Allowed) -> None:
        """Attach the caller to a request whose response will not be seen, and log the decision."""
        caller, peer, recorder = allowed
        source = source_of(request)
        source[IDENTITY] = identity = None if caller is None else caller.identity
        self._attach(request, allowed)
        recorder.record_allowed(identity, peer, self._reader(request), source, None)

    def deny(self, denial: PodAuthError, request: HttpRequest) -> HTTPResponse:
        """Log a denial, and return its response."""
        return self.pipeline.record_denied(denial, self.read(request))

    def read(self, request: HttpRequest) -> IncomingRequest:
        """Return the facts of a request."""
        return self._reader(request)(source_of(request))

    def _reader(self, request: HttpRequest) -> Callable[..., IncomingRequest]:
        if not is_asgi(request):
            return partial(wsgi_request.read_request, header=self.pipeline.header)
        from podproof._request import asgi_request  # noqa: PLC0415  needs the extra asgi

        return partial(asgi_request.read_request, header=self.pipeline.header)

    def _attach(self, request: HttpRequest, allowed: Allowed) -> None:
        attach(request, None if allowed.caller is None else allowed.caller.identity)
        if allowed.caller is not None and not self.pipeline.keep_authorization:
            _take_token_off(request, self.pipeline.header)


def is_asgi(request: HttpRequest) -> bool:
    """Return True if a request comes from an ASGI server."""
    return hasattr(request, "scope")


def source_of(request: HttpRequest) -> Any:
    """Return a request's environ or scope."""
    return request.scope if is_asgi(request) else request.environ


def attach(request: HttpRequest, identity: PodIdentity | None) -> None:
    """Set the caller of a request, and the user of Django's RemoteUserMiddleware, which no header names any more."""
    request.caller = identity
    request.META.pop("HTTP_REMOTE_USER", None)
    if identity is not None:
        request.META["REMOTE_USER"] = request.META["HTTP_REMOTE_USER"] = identity.identity


def end_with_token(response: HttpResponseBase, entered: InAppRequest) -> HttpResponseBase:
    """Return the response to send to a request: a denial of `require` as it is, a stream until the token ends."""
    own = entered.replacement(response.status_code, response.items())
    if own is not None:
        response.close()
        response = HttpResponse(own.body, status=own.status, headers=dict(own.headers))
    entered.settle(response.status_code)
    if response.streaming and entered.ends_at < math.inf:
        limit: Callable[..., Any] = limit_chunks if response.is_async else LimitedChunks
        response.streaming_content = limit(response.streaming_content, entered.ends_at)
    return response


def _take_token_off(request: HttpRequest, header: CredentialHeader) -> None:
    request.META.pop(header.key, None)
    request.__dict__.pop("headers", None)  # which Django makes of META once
    if is_asgi(request):
        request.scope["headers"] = [
            (name, value) for name, value in request.scope["headers"] if name not in header.names
        ]
