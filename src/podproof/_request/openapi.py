"""The caller as a dependency of FastAPI, with its security scheme in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from fastapi import Security
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from podproof._request.context import get_caller
from podproof._request.denied import denied
from podproof.errors import NoCredential
from podproof.identity import PodIdentity

SCHEME = HTTPBearer(bearerFormat="JWT", description="The caller's service-account token.")


class _CallerScheme(SecurityBase):
    # FastAPI's own HTTPBearer would look for the Authorization header, which the middleware has removed.
    model = SCHEME
    scheme_name = "podproof"

    async def __call__(self, connection: HTTPConnection) -> PodIdentity:
        identity = get_caller(connection.scope)
        if identity is None:
            raise denied(NoCredential("the request is anonymous, and its endpoint needs a caller"))
        return identity


Caller = Annotated[PodIdentity, Security(_CallerScheme())]
"""The `PodIdentity` of the caller. An anonymous request is denied with 401."""
