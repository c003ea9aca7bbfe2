"""Protected resource metadata (RFC 9728): where a client learns what token a server wants."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence

from starlette.responses import Response
from starlette.types import Message, Send

from podproof.errors import ConfigurationError

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
# Without a query, and of characters that need no quoting in a challenge.
_RESOURCE = re.compile(r"(?P<origin>https?://[\w.:\[\]-]+)(?P<path>/[\w.~!$&'()*+,;=:@%/-]*)?", re.ASCII)


class ResourceMetadata:
    """The metadata of one resource, its path, and the challenge that names it.

    `authorization_servers` are the issuers of accepted tokens, `schemes` those that they are sent by. Raises
    ConfigurationError for an invalid resource.
    """

    def __init__(
        self, resource: str, authorization_servers: Sequence[str], schemes: Collection[str] = ("Bearer",)
    ) -> None:
        parts = _RESOURCE.fullmatch(resource)
        if parts is None:
            raise ConfigurationError(
                f"invalid resource {resource!r:.80}: expected the server's URL as clients know it, such as "
                '"http://bob.default.svc/mcp"'
            )
        # Between host and path (RFC 9728 section 3.1).
        self.path = _WELL_KNOWN + (parts["path"] or "").removesuffix("/")
        self._parameter = f', resource_metadata="{parts["origin"]}{self.path}"'.encode()
        methods = ["header"] if "Bearer" in schemes else []
        document: dict[str, object] = {"resource": resource, "bearer_methods_supported": methods}
        if not methods:
            document["dpop_bound_access_tokens_required"] = True
        if authorization_servers:
            document["authorization_servers"] = [*authorization_servers]
        self._body = json.dumps(document).encode()

    @property
    def response(self) -> Response:
        """The metadata, for everybody, browsers included."""
        return Response(self._body, media_type="application/json", headers={"Access-Control-Allow-Origin": "*"})

    def in_challenges(self, send: Send) -> Send:
        """Return a `send` that adds the metadata's URL to each challenge for a token (section 5.1)."""

        async def send_challenge(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (400, 401, 403):
                message["headers"] = [
                    (name, value + self._parameter if _is_challenge(name, value) else value)
                    for name, value in message.get("headers", ())
                ]
            await send(message)

        return send_challenge


def _is_challenge(name: bytes, value: bytes) -> bool:
    return (
        name.lower() == b"www-authenticate"
        and value.startswith((b"Bearer ", b"DPoP "))
        and b"resource_metadata=" not in value
    )
