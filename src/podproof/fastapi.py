"""The caller in FastAPI: an endpoint's parameter `caller: Caller`, with its security scheme in the OpenAPI document."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "fastapi")

from podproof._request.openapi import Caller
from podproof.asgi import PodAuthMiddleware

__all__ = ["Caller", "PodAuthMiddleware"]
