"""gRPC: the caller in servers of `grpc`, the token in its clients. `podproof.grpc.aio` is the same for `grpc.aio`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from podproof._extras import require_extra

if TYPE_CHECKING:
    from podproof.grpc._blocking_client import TokenInterceptor
    from podproof.grpc._blocking_interceptor import PodAuthInterceptor
    from podproof.grpc._credentials import call_credentials

__all__ = ["PodAuthInterceptor", "TokenInterceptor", "call_credentials"]

_MODULES = {
    "PodAuthInterceptor": "_blocking_interceptor",
    "TokenInterceptor": "_blocking_client",
    "call_credentials": "_credentials",
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
