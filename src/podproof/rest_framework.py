"""Django REST framework: pods beside other callers, by an authentication class and a permission class."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "rest-framework")

import json
from functools import cache
from typing import Any, Self

from django.core.signals import setting_changed
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from podproof._authorization.allow_list import AllowList
from podproof._request import blocking_driver
from podproof._request.context import IDENTITY, current_request
from podproof._request.django_in_app import InAppAuthenticator, options_in_settings, source_of
from podproof._request.pod_user import PodUser
from podproof._request.problem import HTTPResponse
from podproof.errors import Forbidden, NoCredential, NotAllowed, PodAuthError
from podproof.identity import PodIdentity

__all__ = ["PodAuthentication", "PodPermission"]


class PodAuthentication(BaseAuthentication):
    """Authenticates pods: `request.user` is a `podproof.django.PodUser`, `request.auth` the caller's `PodIdentity`.

    Behind `podproof.django.PodAuthMiddleware` it takes the caller from there. Without, it decides itself, with the same
    options, the `PODPROOF` of the settings, and the same statuses; it sees no response, so the decision is logged
    without a status, and there is no `current_caller()`. A request without a credential is denied, whatever other
    classes there are behind it; with `optional`, it is theirs.
    """

    def authenticate(self, request: Request) -> tuple[PodUser, PodIdentity] | None:
        """Return the caller, None for an anonymous one. Raises APIException to deny."""
        http: HttpRequest = request._request  # noqa: SLF001  Django's own
        source = source_of(http)
        if IDENTITY not in source:
            self._decide(http)
        identity: PodIdentity | None = source[IDENTITY]
        return None if identity is None else (PodUser(identity), identity)

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401 that a permission class causes."""
        authenticator = _authenticator()
        error = NoCredential("a permission class needs a caller")
        denial = authenticator.pipeline.make_denial(error, authenticator.read(request._request))  # noqa: SLF001
        return dict(denial.response.headers)["WWW-Authenticate"]

    def _decide(self, http: HttpRequest) -> None:
        authenticator = _authenticator()
        try:
            authenticator.attach_and_log(http, blocking_driver.run_flow(authenticator.flow(http)))
        except PodAuthError as denial:
            raise _Denied(authenticator.deny(denial, http)) from None


class PodPermission(BasePermission):
    """Allows pods alone; `PodPermission.allow("batch/*")` those of some service accounts, with shell globs.

    It can be combined with other permission classes: `PodPermission | IsAdminUser`.
    """

    allowed = AllowList(["*/*"])
    message = Forbidden.detail

    @classmethod
    def allow(cls, *patterns: str) -> type[Self]:
        """Return the permission class that allows these service accounts. Raises ValueError for an invalid pattern."""
        return type(cls.__name__, (cls,), {"allowed": AllowList(patterns)})

    def has_permission(self, request: Request, _: object) -> bool:
        """Return True if the caller is one of these pods."""
        if not isinstance(request.user, PodUser):
            return False
        try:
            self.allowed.authorize(request.user.identity.service_account)
        except NotAllowed as denial:
            current = current_request.get()
            if current is not None and current.recorder is not None:
                current.deny(denial.with_identity(request.user.identity))
            return False
        return True


class _Denied(APIException):
    """A denial as REST framework's own handler of exceptions makes a response of it."""

    def __init__(self, response: HTTPResponse) -> None:
        headers = dict(response.headers)
        self.detail: Any = json.loads(response.body)
        self.status_code = response.status
        self.auth_header = headers.get("WWW-Authenticate")
        self.wait = int(headers.get("Retry-After", 0))


@cache
def _authenticator() -> InAppAuthenticator:
    return InAppAuthenticator(options_in_settings())


def _forget(*, setting: str, **_: object) -> None:
    if setting == "PODPROOF":
        _authenticator.cache_clear()


setting_changed.connect(_forget)  # by a test
