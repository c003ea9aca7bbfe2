"""The caller as a dependency of FastAPI, and its security schemes in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from fastapi import Security
from fastapi.openapi.models import APIKey, HTTPBearer
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from podproof._request.context import get_caller
from podproof._request.denied import denied
from podproof._token.header_name import AUTHORIZATION
from podproof.errors import NoCredential
from podproof.identity import PodIdentity

NAME = "podproof"

BEARER = HTTPBearer(bearerFormat="JWT", description="The caller's service-account token.")


def scheme_in(header: str) -> tuple[str, SecurityModel]:
    """Return the name and the model of the scheme with the token in this header."""
    if header.lower() == AUTHORIZATION.lower():
        return NAME, BEARER
    description = "`Bearer`, a blank and the caller's service-account token."
    key = APIKey.model_validate({"in": "header", "name": header, "description": description})
    return f"{NAME}-{header}", key


class _CallerScheme(SecurityBase):
    # FastAPI's own HTTPBearer would look for the Authorization header, which the middleware has removed.
    model = BEARER
    scheme_name = NAME

    async def __call__(self, connection: HTTPConnection) -> PodIdentity:
        identity = get_caller(connection.scope)
        if identity is None:
            raise denied(NoCredential("the request is anonymous, and its endpoint needs a caller"))
        return identity


Caller = Annotated[PodIdentity, Security(_CallerScheme())]
"""The `PodIdentity` of the caller. An anonymous request is denied with 401."""
