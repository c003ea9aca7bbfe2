"""A denial in the form that the app's framework understands: raised from a view, it is a response and no error.

Whatever a framework makes of it, the client gets the middleware's own response (`CurrentRequest.replacement`). The form
keeps the reason from the handlers that an app has for its errors, and the denial out of their log.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, cast

from podproof._request.context import current_request
from podproof._request.problem import HTTPResponse
from podproof.errors import PodAuthError

Form = Callable[[PodAuthError, HTTPResponse], PodAuthError]
"""Makes an error that is a framework's exception too. Whatever it needs is loaded, by the app."""


def denied(error: PodAuthError) -> PodAuthError:
    """Deny the current request, and return the exception to raise: the error, in its framework's form.

    The framework is known by what it has left in the environ or scope. Outside a request the error is returned as it
    is.
    """
    request = current_request.get()
    if request is None or request.recorder is None:
        return error
    return _form(request.source)(error, request.deny(error).response)


def _form(source: Any) -> Form:  # noqa: PLR0911  one for each framework
    if not isinstance(source, Mapping):  # a call of gRPC, whose handlers need no form
        return _as_it_is
    # A framework that is not loaded is not the app's.
    flask, quart = sys.modules.get("flask"), sys.modules.get("quart")
    starlette = sys.modules.get("starlette.applications")
    if flask and flask.has_request_context():
        return _werkzeug
    if quart and (quart.has_request_context() or quart.has_websocket_context()):
        return _werkzeug
    if "bottle.request" in source:
        return _bottle
    if "litestar_app" in source:
        return _litestar
    # To a WebSocket, Starlette's handler of HTTPException sends nothing.
    if starlette and source.get("type") == "http" and isinstance(source.get("app"), starlette.Starlette):
        return _starlette
    return _falcon


def _as_it_is(error: PodAuthError, _: HTTPResponse) -> PodAuthError:
    return error


def _werkzeug(error: PodAuthError, response: HTTPResponse) -> PodAuthError:
    """Return the form for Flask and Quart, which send the response of an HTTPException without a code as it is."""
    from werkzeug.exceptions import HTTPException  # noqa: PLC0415  the app has loaded it
    from werkzeug.wrappers import Response  # noqa: PLC0415  the app has loaded it

    made = _copy(error, type(error), HTTPException)
    HTTPException.__init__(made, error.detail, Response(response.body, response.status, response.headers))
    made.code = None
    return cast("PodAuthError", made)


def _starlette(error: PodAuthError, response: HTTPResponse) -> PodAuthError:
    from starlette.exceptions import HTTPException  # noqa: PLC0415  the app has loaded it

    made = _copy(error, type(error), HTTPException, *_mcp_errors())
    HTTPException.__init__(made, response.status, error.detail, _headers(response))
    made.log_level = logging.INFO  # FastMCP's
    return cast("PodAuthError", made)


_MCP_ERRORS = {
    "mcp.server.mcpserver.exceptions": ("ToolError", "ResourceError"),
    "fastmcp.exceptions": ("AuthorizationError",),
}


def _mcp_errors() -> Iterator[type]:
    """Yield the errors of the MCP SDK and FastMCP, whose apps are Starlette's, that a tool or a resource may raise.

    They tell the client what they say, and are no crash.
    """
    for name, errors in _MCP_ERRORS.items():
        module = sys.modules.get(name)
        yield from (getattr(module, error) for error in errors if hasattr(module, error))


def _litestar(error: PodAuthError, response: HTTPResponse) -> PodAuthError:
    from litestar.exceptions import HTTPException  # noqa: PLC0415  the app has loaded it

    made = _copy(error, type(error), HTTPException)
    HTTPException.__init__(made, detail=error.detail, status_code=response.status, headers=_headers(response))
    return cast("PodAuthError", made)


def _bottle(error: PodAuthError, response: HTTPResponse) -> PodAuthError:
    import bottle  # noqa: PLC0415  the app has loaded it

    made = _copy(error, bottle.HTTPResponse, type(error))  # in this order: its status is a property
    bottle.HTTPResponse.__init__(made, response.body, response.status, _headers(response))
    return cast("PodAuthError", made)


def _falcon(error: PodAuthError, response: HTTPResponse) -> PodAuthError:
    """Return the form for Falcon, which leaves nothing in the source. In other apps it is an error as the given one."""
    falcon = sys.modules.get("falcon")
    if falcon is None:
        return error
    made = _copy(error, type(error), falcon.HTTPStatus)
    falcon.HTTPStatus.__init__(made, response.status, _headers(response))
    return cast("PodAuthError", made)


def _copy(error: PodAuthError, *bases: type) -> Any:
    kind = _combine(*bases)
    made = kind.__new__(kind)
    made.__dict__.update(error.__dict__)
    return made


@cache
def _combine(*bases: type) -> Any:
    """Return a class that is an error of podproof and a framework's exception."""
    return type("Denied", bases, {"__module__": __name__})


def _headers(response: HTTPResponse) -> dict[str, str]:
    """Return the headers, but for those of the body, which the framework writes."""
    return {name: value for name, value in response.headers if not name.startswith("Content-")}
