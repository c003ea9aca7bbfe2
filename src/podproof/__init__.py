"""podproof tells a web app which pod is calling it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from podproof._extras import require_extra
from podproof._version import __version__ as __version__

if TYPE_CHECKING:
    from podproof._authorization.rbac import RBAC
    from podproof._authorization.rules import Rule
    from podproof._request.context import current_caller
    from podproof._request.require import require
    from podproof.audit import CallerFilter
    from podproof.client import HostNotAllowed, TokenClient, TokenFile, TokenUnavailable
    from podproof.errors import ConfigurationError, PodAuthError
    from podproof.identity import Pod, PodIdentity, ServiceAccount

__all__ = [
    "RBAC",
    "CallerFilter",
    "ConfigurationError",
    "HostNotAllowed",
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

_HOMES = {
    "CallerFilter": "audit",
    "ConfigurationError": "errors",
    "HostNotAllowed": "client",
    "Pod": "identity",
    "PodAuthError": "errors",
    "PodIdentity": "identity",
    "RBAC": "_authorization.rbac",
    "Rule": "_authorization.rules",
    "ServiceAccount": "identity",
    "TokenClient": "client",
    "TokenFile": "client",
    "TokenUnavailable": "client",
    "current_caller": "_request.context",
    "require": "_request.require",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562): a caller needs no server's half, nor the other way round."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "RBAC":
        require_extra("podproof.RBAC", "server")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
