"""The caller, as Flask likes to be told."""

from __future__ import annotations

from flask import request
from werkzeug.local import LocalProxy

from podproof.identity import PodIdentity
from podproof.wsgi import IDENTITY, PodAuthMiddleware

__all__ = ["PodAuthMiddleware", "caller"]


def _caller() -> PodIdentity:
    identity: PodIdentity | None = request.environ[IDENTITY]
    if identity is None:
        raise RuntimeError("nobody is known on this request: its path is exempt, or it came without a credential")
    return identity


caller: PodIdentity = LocalProxy(_caller)  # type: ignore[assignment]  # stands in for what it leads to, as flask.request
"""Who is calling: a `PodIdentity`, in a request that a `PodAuthMiddleware` let in."""
