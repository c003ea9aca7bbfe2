"""podproof tells a web app which pod is calling it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from podproof.audit import CallerFilter
    from podproof.caller import current_caller
    from podproof.client import HostNotAllowed, TokenClient, TokenFile, TokenUnavailable
    from podproof.errors import ConfigurationError, PodAuthError
    from podproof.identity import Pod, PodIdentity, ServiceAccount
    from podproof.policy import require
    from podproof.rbac import RBAC
    from podproof.rules import Rule

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
    "RBAC": "rbac",
    "Rule": "rules",
    "ServiceAccount": "identity",
    "TokenClient": "client",
    "TokenFile": "client",
    "TokenUnavailable": "client",
    "current_caller": "caller",
    "require": "policy",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562): a caller needs no server's half, nor the other way round."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
