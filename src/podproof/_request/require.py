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

    Decorates a view of Flask or Quart. In FastAPI it is `Depends(require("batch/*").dependency)`, which gives the
    caller. Both refuse with the middleware's own answer.

    Raises ValueError for a pattern that is not of the form.
    """
    return Requirement(AllowList(patterns))


class Requirement:
    """See `require`."""

    def __init__(self, allow: AllowList) -> None:
        self._allow = allow

    def check(self) -> PodIdentity:
        """Return the caller of the request at hand.

        Raises NotAllowed, and NoCredential where nobody is known: whoever raises them in an ASGI app or a plain WSGI
        app has them answered by the middleware around it.
        """
        identity = current_caller()
        if identity is None:
            raise NoCredential("nobody is known on this request, and somebody is required")
        try:
            self._allow.authorize(identity.service_account)
        except NotAllowed as refusal:
            raise refusal.with_identity(identity) from None
        return identity

    async def dependency(self) -> PodIdentity:
        """Do as `check`, on the event loop: FastAPI sends what is not async to a thread."""
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
        """Refuse in the way that Flask and Quart understand: they hand a whole response to the client as it is."""
        try:
            self.check()
        except PodAuthError as refusal:
            # Here and not above: who decorates a view has Werkzeug loaded, and nobody else needs it.
            from werkzeug.exceptions import abort  # noqa: PLC0415
            from werkzeug.wrappers import Response  # noqa: PLC0415

            status, headers, body = deny(refusal)
            abort(Response(body, status, headers))
