"""The caller in Django: `PodAuthMiddleware` for `MIDDLEWARE`, or `CallerMiddleware` behind the one around the app."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "django")

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from podproof._request import blocking_driver
from podproof._request.context import deny, get_caller
from podproof._request.django_in_app import InAppAuthenticator, attach, end_with_token, options_in_settings, source_of
from podproof._request.pod_user import PodUser
from podproof._request.problem import HTTPResponse
from podproof._request.require import require
from podproof.errors import PodAuthError

__all__ = ["CallerMiddleware", "PodAuthMiddleware", "PodUser", "require"]

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


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

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Handle a request, sync or async."""
        attach(request, get_caller(source_of(request)))
        return self.get_response(request)

    def process_exception(self, _: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the response for a PodAuthError, None for any other exception."""
        return _response(deny(exception)) if isinstance(exception, PodAuthError) else None


class PodAuthMiddleware:
    """Allows only requests of authenticated pods, without a middleware around the app in `wsgi.py` and `asgi.py`.

    Put it first in `MIDDLEWARE`. Its options are the dictionary `PODPROOF` in the settings, and PODPROOF_<NAME> in the
    environment. It sets `request.caller` to the caller's `PodIdentity`, and `request.user` of the view to a `PodUser`.
    With `optional`, a request without a credential has no caller, and the user of its session.

    Raises ConfigurationError when Django loads its middleware.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        self._authenticator = InAppAuthenticator(options_in_settings(), get_response)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Handle a request, sync or async."""
        if self._is_async:
            return self._call_async(request)
        authenticator = self._authenticator
        try:
            entered = authenticator.enter(request, blocking_driver.run_flow(authenticator.flow(request)))
        except PodAuthError as denial:
            return _response(authenticator.deny(denial, request))
        try:
            return end_with_token(cast("HttpResponseBase", self._get_response(request)), entered)
        finally:
            entered.leave()

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        from podproof._request import async_driver  # noqa: PLC0415  needs the extra asgi

        authenticator = self._authenticator
        try:
            entered = authenticator.enter(request, await async_driver.run_flow(authenticator.flow(request)))
        except PodAuthError as denial:
            return _response(authenticator.deny(denial, request))
        try:
            return end_with_token(await cast("Awaitable[HttpResponseBase]", self._get_response(request)), entered)
        finally:
            entered.leave()

    def process_view(self, request: HttpRequest, *_: object) -> None:
        """Set the user of the view, whom AuthenticationMiddleware has taken from the session by now."""
        if request.caller is not None:
            user = PodUser(request.caller)

            async def auser() -> PodUser:
                return user

            request.user, request.auser = user, auser

    process_exception = CallerMiddleware.process_exception


def _response(own: HTTPResponse) -> HttpResponse:
    return HttpResponse(own.body, status=own.status, headers=dict(own.headers))
