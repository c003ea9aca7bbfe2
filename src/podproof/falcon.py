"""The caller in Falcon: `req.context.caller`, set by `CallerMiddleware`."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "falcon")

import falcon
import falcon.asgi

from podproof._request.context import get_caller

__all__ = ["CallerMiddleware"]


class CallerMiddleware:
    """Sets `req.context.caller` to the caller's `PodIdentity`, or to None if the request is anonymous.

    For WSGI and ASGI apps. It reads what the PodAuthMiddleware around the app has attached. Raises RuntimeError if the
    request did not pass through PodAuthMiddleware.
    """

    def process_request(self, req: falcon.Request, _: falcon.Response) -> None:
        """Handle a request of a WSGI app."""
        req.context.caller = get_caller(req.env)

    async def process_request_async(self, req: falcon.asgi.Request, _: falcon.asgi.Response) -> None:
        """Handle a request of an ASGI app."""
        req.context.caller = get_caller(req.scope)

    async def process_request_ws(self, req: falcon.asgi.Request, _: falcon.asgi.WebSocket) -> None:
        """Handle a WebSocket of an ASGI app."""
        req.context.caller = get_caller(req.scope)
