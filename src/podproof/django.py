"""The caller in Django: `request.caller`, set by `CallerMiddleware`."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "django")

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from podproof._request.context import deny, get_caller
from podproof.errors import PodAuthError

__all__ = ["CallerMiddleware"]


class CallerMiddleware:
    """Sets `request.caller` to the caller's `PodIdentity`, or to None if the request is anonymous.

    Put it first in `MIDDLEWARE`. It reads what the PodAuthMiddleware around the app in `wsgi.py` or `asgi.py` has
    attached, never a header. It sets REMOTE_USER to the caller's username for Django's own `RemoteUserMiddleware`, also
    under ASGI, where that one would read the client's `Remote-User` header. A PodAuthError that a view raises gets the
    response of PodAuthMiddleware.

    Raises RuntimeError if the request did not pass through PodAuthMiddleware.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Handle a request, sync or async."""
        identity = get_caller(request.scope if hasattr(request, "scope") else request.environ)
        request.caller = identity
        request.META.pop("HTTP_REMOTE_USER", None)
        if identity is not None:
            request.META["REMOTE_USER"] = request.META["HTTP_REMOTE_USER"] = identity.identity
        return self.get_response(request)

    def process_exception(self, _: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the response for a PodAuthError, None for any other exception."""
        if not isinstance(exception, PodAuthError):
            return None
        status, headers, body = deny(exception)
        return HttpResponse(body, status=status, headers=dict(headers))
