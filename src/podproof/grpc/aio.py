"""The same as `podproof.grpc`, for servers and clients of `grpc.aio`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from podproof._extras import require_extra

if TYPE_CHECKING:
    from podproof.grpc._async_client import token_interceptors
    from podproof.grpc._async_interceptor import PodAuthInterceptor

__all__ = ["PodAuthInterceptor", "token_interceptors"]

_MODULES = {
    "PodAuthInterceptor": "_async_interceptor",
    "token_interceptors": "_async_client",
}


def __getattr__(name: str) -> Any:
    """Import a name at its first use: a client needs nothing of the server's half.

    Raises AttributeError, and MissingExtra.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "PodAuthInterceptor":
        require_extra(__name__, "grpc")
    value = getattr(import_module(f"podproof.grpc.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
