"""`require`: only these service accounts may call one part of an app."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, cast

from podproof._authorization.allow_list import AllowList
from podproof._request.context import current_caller, deny
from podproof.errors import NoCredential, NotAllowed, PodAuthError
from podproof.identity import PodIdentity

P = ParamSpec("P")
R = TypeVar("R")


def require(*patterns: str) -> Requirement:
    """Return what lets only these service accounts through to one part of an app, as "namespace/name" with shell globs.

    It decorates a view of Flask or Quart. In FastAPI it is `Depends(require("batch/*").dependency)`, which returns the
    caller. Both deny with the middleware's own response.

    Raises ValueError for an invalid pattern.
    """
    return Requirement(AllowList(patterns))


class Requirement:
    """What `require` returns."""

    def __init__(self, allow: AllowList) -> None:
        self._allow = allow

    def check(self) -> PodIdentity:
        """Return the caller of the current request, if it is one of those required.

        Raises NotAllowed, and NoCredential for an anonymous caller. Raised in an ASGI app or a plain WSGI app, they
        become the middleware's response.
        """
        identity = current_caller()
        if identity is None:
            raise NoCredential("this part of the app requires a caller, and the request has none")
        try:
            self._allow.authorize(identity.service_account)
        except NotAllowed as denial:
            raise denial.with_identity(identity) from None
        return identity

    async def dependency(self) -> PodIdentity:
        """Return the same as `check`, on the event loop: FastAPI runs a dependency that is not async in a thread."""
        return self.check()

    def __call__(self, view: Callable[P, R]) -> Callable[P, R]:
        """Decorate a view of Flask or Quart, sync or async."""
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                self._check_or_abort()
                return await view(*args, **kwargs)

            return cast("Callable[P, R]", guarded_async)

        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            self._check_or_abort()
            return view(*args, **kwargs)

        return guarded

    def _check_or_abort(self) -> None:
        """Deny in the form that Flask and Quart understand: they send a whole response to the client as it is."""
        try:
            self.check()
        except PodAuthError as denial:
            # Here and not above: a decorated view has Werkzeug loaded, and nothing else needs it.
            from werkzeug.exceptions import abort  # noqa: PLC0415
            from werkzeug.wrappers import Response  # noqa: PLC0415

            status, headers, body = deny(denial)
            abort(Response(body, status, headers))
