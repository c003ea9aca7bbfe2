"""The caller, as FastAPI likes to be told: a parameter of an endpoint, and a scheme in the OpenAPI document."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "fastapi")

from typing import Annotated

from fastapi import Security
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from podproof._request.context import get_caller
from podproof.asgi import PodAuthMiddleware
from podproof.errors import NoCredential
from podproof.identity import PodIdentity

__all__ = ["Caller", "PodAuthMiddleware"]


class _CallerScheme(SecurityBase):
    # FastAPI's own HTTPBearer would look for the header, which is off the request by now.
    model = HTTPBearer(bearerFormat="JWT", description="The caller's service-account token.")
    scheme_name = "podproof"

    async def __call__(self, connection: HTTPConnection) -> PodIdentity:
        identity = get_caller(connection.scope)
        if identity is None:
            raise NoCredential("nobody is known on this request, and its endpoint asks who it is")
        return identity


Caller = Annotated[PodIdentity, Security(_CallerScheme())]
"""Who is calling: a `PodIdentity`. Where nobody is known (an `optional` or `exempt` request), the answer is 401."""
