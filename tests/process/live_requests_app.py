"""An app that counts the requests that are still in memory, with the middleware around it and without."""

from __future__ import annotations

import gc
import json
from typing import Any

from podproof import asgi

_OURS = "podproof._request"


def count_live() -> dict[str, int]:
    """Return how many ASGI scopes, and objects of podproof's request handling, are referenced after a collection."""
    gc.collect()
    objects = gc.get_objects()
    scopes = sum(type(one) is dict and one.get("type") == "http" and "raw_path" in one for one in objects)
    ours = sum(str(type(one).__module__).startswith(_OURS) for one in objects)
    return {"scopes": scopes, "requests": ours}


async def bare_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = json.dumps(count_live()).encode() if scope["path"] == "/live" else b"ok"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


protected_app = asgi.PodAuthMiddleware(bare_app, exempt=["/healthz", "/live"])
