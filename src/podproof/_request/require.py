"""`require`: only these service accounts may call one part of an app."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from functools import wraps
from inspect import Parameter, Signature, isasyncgenfunction, iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, cast, overload

from podproof._authorization.allow_list import AllowList
from podproof._request.context import NOT_WRAPPED, current_caller, current_request
from podproof._request.denied import denied
from podproof.errors import NoCredential, NotAllowed, PodAuthError
from podproof.identity import PodIdentity

P = ParamSpec("P")
R = TypeVar("R")


def require(*patterns: str) -> Requirement:
    """Return what lets only these service accounts through to one part of an app, as "namespace/name" with shell globs.

    It decorates a view of any framework or a method of a gRPC service, `Depends(require("batch/*"))` is a dependency of
    FastAPI that returns the caller, `guards=[require("batch/*")]` a guard of Litestar, and `require("batch/*").check()`
    a call anywhere in a request. Each denies with the middleware's own response.

    Raises ValueError for an invalid pattern.
    """
    return Requirement(AllowList(patterns))


class Requirement:
    """What `require` returns."""

    def __init__(self, allow: AllowList) -> None:
        self._allow = allow

    def check(self) -> PodIdentity:
        """Return the caller of the current request, if it is one of those required.

        Raises NotAllowed, and NoCredential for an anonymous caller. In an app behind PodAuthMiddleware they become its
        response, and are exceptions of the app's framework as well.
        """
        identity = current_caller()
        if identity is None:
            raise denied(NoCredential("this part of the app requires a caller, and the request has none"))
        try:
            self._allow.authorize(identity.service_account)
        except NotAllowed as denial:
            raise denied(denial.with_identity(identity)) from None
        return identity

    async def dependency(self) -> PodIdentity:
        """Return the same as `check`, on the event loop: FastAPI runs a dependency that is not async in a thread."""
        return self.check()

    @overload
    def __call__(self, view: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def __call__(self, *arguments: Any, **by_name: Any) -> Any: ...

    def __call__(self, *arguments: Any, **by_name: Any) -> Any:
        """Decorate a view, sync or async, if called with one; else check, as a framework's hook.

        Hooks are called with a request (Falcon, Litestar), by name (FastAPI, for the caller), or with nothing (Flask
        and Quart, where None lets the request pass).
        """
        if len(arguments) == 1 and callable(arguments[0]):
            return self._decorate(arguments[0])
        falcon = sys.modules.get("falcon.asgi")
        if falcon and arguments and isinstance(arguments[0], falcon.Request):
            return self._check_async()
        identity = self.check()
        return identity if by_name else None

    def __getattr__(self, name: str) -> Any:
        """Return the signature that FastAPI injects by, which has its security scheme, where FastAPI is loaded."""
        if name == "__signature__" and "fastapi" in sys.modules:
            from podproof._request.openapi import Caller  # noqa: PLC0415  needs FastAPI

            return Signature([Parameter("caller", Parameter.KEYWORD_ONLY, annotation=Caller)])
        raise AttributeError(name)

    async def _check_async(self) -> None:
        self.check()

    def _decorate(self, view: Callable[P, R]) -> Callable[P, R]:
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                response = self._guard(args)
                return await view(*args, **kwargs) if response is None else response

            return cast("Callable[P, R]", guarded_async)

        if isasyncgenfunction(view):

            @wraps(view)
            async def guarded_stream(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
                self._guard(args)
                async for item in view(*args, **kwargs):
                    yield item

            return cast("Callable[P, R]", guarded_stream)

        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            response = self._guard(args)
            return view(*args, **kwargs) if response is None else cast("R", response)

        return guarded

    def _guard(self, arguments: tuple[object, ...]) -> object:
        """Return None to run a view. To deny, raise, or return the response where a framework wants that: in Django."""
        request = current_request.get()
        if request is None or request.recorder is None:
            raise RuntimeError(NOT_WRAPPED)
        django = sys.modules.get("django.http")
        try:
            self.check()
        except PodAuthError as denial:
            # The second argument of a method.
            if django and any(isinstance(one, django.HttpRequest) for one in arguments[:2]):
                status, headers, body = request.deny(denial).response
                return django.HttpResponse(body, status=status, headers=dict(headers))
            raise
        return None
