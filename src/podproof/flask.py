"""The caller in Flask: `from podproof.flask import caller`, used like `flask.request`; `PodAuth` for a blueprint."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "flask")

import math
from functools import partial
from http import HTTPStatus
from typing import Unpack

from flask import Blueprint, Flask, Response, request
from flask.globals import app_ctx

from podproof._request.caller_proxy import CallerProxy
from podproof._request.context import current_request, get_caller
from podproof._request.denied import denied
from podproof._request.in_app import InAppRequest, LimitedChunks, enter
from podproof._request.problem import HTTPResponse
from podproof._request.routing import LatestRouting
from podproof._request.setup import MiddlewareOptions, build_pipeline
from podproof._request.wsgi_body import LimitedInput
from podproof._request.wsgi_request import decide, read_request
from podproof.errors import NoCredential, PodAuthError
from podproof.identity import PodIdentity
from podproof.wsgi import PodAuthMiddleware

__all__ = ["PodAuth", "PodAuthMiddleware", "caller"]


class PodAuth:
    """Allows only authenticated pods on a Flask app, or on a blueprint, without a middleware around the app.

    `PodAuth(app, audience="bob")`, or `init_app` for each app and blueprint, before the blueprint is registered. It
    takes the options of `PodAuthMiddleware`, denies with the same responses, and ends as that does. Hooks that run
    before it, as an app's before a blueprint's, see the token.

    Raises ConfigurationError.
    """

    def __init__(self, app: Flask | Blueprint | None = None, **given: Unpack[MiddlewareOptions]) -> None:
        self._pipeline = build_pipeline(given)
        self._read = partial(read_request, header=self._pipeline.header)
        self._routing = LatestRouting()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask | Blueprint) -> None:
        """Authenticate the requests of an app or a blueprint, before other hooks of it."""
        app.before_request(self._authenticate)
        app.after_request(self._settle)
        app.teardown_request(self._end)
        # The first before a request is the last after it.
        before, after = app.before_request_funcs[None], app.after_request_funcs[None]
        before.insert(0, before.pop())
        after.insert(0, after.pop())

    def _authenticate(self) -> Response | None:
        environ, pipeline = request.environ, self._pipeline
        routing = self._routing.of_app(app_ctx.app)
        try:
            allowed = decide(pipeline, routing, environ, None, None)
        except PodAuthError as denial:
            return _response(pipeline.record_denied(denial, self._read(environ)))
        entered = enter(pipeline, allowed, environ, self._read)
        if allowed.caller is not None:
            environ["wsgi.input"] = LimitedInput(given=environ["wsgi.input"], ends_at=entered.ends_at)
            environ["REMOTE_USER"], environ["AUTH_TYPE"] = allowed.caller.username, "Bearer"
            if not pipeline.keep_authorization:
                environ.pop(pipeline.header.key, None)
        return None

    def _settle(self, response: Response) -> Response:
        entered = _entered()
        if entered is None:
            return response
        own = entered.replacement(response.status_code, response.headers.items())
        if own is not None:
            response = _response(own)
        entered.settle(response.status_code)
        if response.is_streamed and entered.ends_at < math.inf:
            response.response = LimitedChunks(response.iter_encoded(), entered.ends_at)
        return response

    def _end(self, error: BaseException | None) -> None:
        entered = _entered()
        if entered is not None:
            entered.leave(None if error is None else HTTPStatus.INTERNAL_SERVER_ERROR)


def _entered() -> InAppRequest | None:
    entered = current_request.get()
    return entered if isinstance(entered, InAppRequest) and entered.source is request.environ else None


def _response(own: HTTPResponse) -> Response:
    return Response(own.body, own.status, own.headers)


def _get_identity() -> PodIdentity:
    identity = get_caller(request.environ)
    if identity is None:
        raise denied(NoCredential("the request is anonymous, and its view needs a caller"))
    return identity


caller: PodIdentity = CallerProxy(_get_identity)  # type: ignore[assignment]  # a proxy, as flask.request is
