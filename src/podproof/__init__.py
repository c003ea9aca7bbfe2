"""podproof tells a web app which Kubernetes pod is calling it.

The app, in WSGI (Flask, Django, ...) or ASGI (Starlette, FastAPI, ...):

    from podproof.wsgi import PodAuthMiddleware
    app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience="bob")

    from podproof.asgi import PodAuthMiddleware
    app.add_middleware(PodAuthMiddleware, audience="bob")

The caller's `PodIdentity` is then in `podproof.flask.caller`, in FastAPI's parameter `podproof.fastapi.Caller`, in
Starlette's `request.user`, and in `podproof.current_caller()` everywhere. The other frameworks have a module of their
name as well.

The caller, in another pod:

    from podproof import TokenClient
    with TokenClient(audience="bob").session() as http:
        http.get("http://bob/whoami")

`podproof.testing` has an emulated cluster for tests, `podproof.drain` the graceful shutdown, `podproof.errors` every
reason to deny a request.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from podproof._version import __version__ as __version__

if TYPE_CHECKING:
    from podproof._authorization.rbac import RBAC
    from podproof._authorization.rules import Rule
    from podproof._request.context import current_caller
    from podproof._request.require import require
    from podproof.audit import CallerFilter
    from podproof.client import TokenClient, TokenFile
    from podproof.errors import ConfigurationError, HostNotAllowed, PodAuthError, TokenUnavailable
    from podproof.identity import Owner, Pod, PodIdentity, ServiceAccount

__all__ = [
    "RBAC",
    "CallerFilter",
    "ConfigurationError",
    "HostNotAllowed",
    "Owner",
    "Pod",
    "PodAuthError",
    "PodIdentity",
    "Rule",
    "ServiceAccount",
    "TokenClient",
    "TokenFile",
    "TokenUnavailable",
    "current_caller",
    "require",
]

_MODULES = {
    "CallerFilter": "audit",
    "ConfigurationError": "errors",
    "HostNotAllowed": "errors",
    "Owner": "identity",
    "Pod": "identity",
    "PodAuthError": "errors",
    "PodIdentity": "identity",
    "RBAC": "_authorization.rbac",
    "Rule": "_authorization.rules",
    "ServiceAccount": "identity",
    "TokenClient": "client",
    "TokenFile": "client",
    "TokenUnavailable": "errors",
    "current_caller": "_request.context",
    "require": "_request.require",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562): callers do not load the server's half, nor servers the caller's.

    Raises AttributeError.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return [*__all__, "__version__"]
