"""Who may call: lists of service accounts, and the form of everything that decides by caller, method and path."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from fnmatch import translate
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

from podproof.caller import current_caller, refuse
from podproof.errors import NoCredential, NotAllowed, PodAuthError
from podproof.identity import PodIdentity, ServiceAccount

P = ParamSpec("P")
R = TypeVar("R")

Verdict = Literal[True] | PodAuthError
"""What was found out about a caller who asks for something: that it may, or the refusal."""


@runtime_checkable
class Policy(Protocol):
    """Decides what a known caller may do."""

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Verdict] | None:
        """Return for a caller who may; for one who has to be asked about, return what will bring the verdict.

        `method` is in upper case, `path` normal (see `podproof.paths.is_normal`) and as the wrapped app's routes see
        it. Neither blocks nor does more than a few microseconds' work.

        Raises NotAllowed, or Unavailable.
        """


class AllowList:
    """Service accounts by name: "namespace/name", both parts with shell globs, neither crossing the slash."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Take at least one pattern. Raises ValueError for one that is not of the form."""
        if not patterns:
            raise ValueError("an allow-list without a pattern would allow nobody")
        self.patterns = tuple(patterns)
        self._pairs = [_compile(pattern) for pattern in patterns]

    def check(self, service_account: ServiceAccount) -> None:
        """Raise NotAllowed for a service account that no pattern matches."""
        for namespace, name in self._pairs:
            if namespace.match(service_account.namespace) and name.match(service_account.name):
                return
        raise NotAllowed(f"{service_account} is not among {', '.join(self.patterns)}")

    def __repr__(self) -> str:
        return f"AllowList({list(self.patterns)!r})"


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
            self._allow.check(identity.service_account)
        except NotAllowed as refusal:
            raise refusal.of(identity) from None
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

            status, headers, body = refuse(refusal)
            abort(Response(body, status, headers))


def _compile(pattern: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    namespace, slash, name = pattern.partition("/")
    if not namespace or not slash or not name or "/" in name:
        raise ValueError(f'{pattern!r} is not of the form "namespace/name"')
    return re.compile(translate(namespace)), re.compile(translate(name))
