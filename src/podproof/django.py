"""The caller, as Django likes to be told: `request.caller`."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "django")

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from podproof._request.context import deny, get_caller
from podproof.errors import PodAuthError


class CallerMiddleware:
    """Sets `request.caller` to the caller's `PodIdentity`, None where nobody is known: first in `MIDDLEWARE`.

    It reads what the PodAuthMiddleware around the app in `wsgi.py` or `asgi.py` has attached, never a header. For
    Django's own `RemoteUserMiddleware` it sets REMOTE_USER to the caller's username, also under ASGI, where that reads
    the client's `Remote-User` header. A PodAuthError that a view raises is answered as the PodAuthMiddleware would.

    Raises RuntimeError in a request that no PodAuthMiddleware has let in.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Handle a request."""
        identity = get_caller(request.scope if hasattr(request, "scope") else request.environ)
        request.caller = identity
        request.META.pop("HTTP_REMOTE_USER", None)
        if identity is not None:
            request.META["REMOTE_USER"] = request.META["HTTP_REMOTE_USER"] = identity.identity
        return self.get_response(request)

    def process_exception(self, _: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer a refusal."""
        if not isinstance(exception, PodAuthError):
            return None
        status, headers, body = deny(exception)
        return HttpResponse(body, status=status, headers=dict(headers))
