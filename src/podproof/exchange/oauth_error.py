"""An error of a token endpoint (RFC 6749 section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class OAuthError(Exception):
    """A request to a token endpoint is refused (RFC 6749 section 5.2).

    `error` is the code, `description` a text that is safe to send: it quotes nothing of the request. `headers` go with
    the response.
    """

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON of the response. `request_id` leads to the log line that has the reason."""
        return {"error": self.error, "error_description": self.description, "request_id": request_id}
