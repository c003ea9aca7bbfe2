"""Clients of an app, WSGI or ASGI, at the address of Alice's pod: with her token, or anonymous."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient
from werkzeug.test import Client

from tests.support.fake_api import PEER, token

AUTHORIZATION = {"Authorization": f"Bearer {token()}"}
ALICE = "default/alice in default/alice-pod"
"""What the apps of these tests respond with for Alice."""


def asgi_client(app: Any, *, anonymous: bool = False) -> TestClient:
    """Return a client of an ASGI app."""
    headers = {} if anonymous else AUTHORIZATION
    return TestClient(app, client=(PEER, 4711), headers=headers, raise_server_exceptions=False)


def wsgi_get(app: Any, path: str, *, anonymous: bool = False, **headers: str) -> tuple[int, str]:
    """Return the status and the text of a WSGI app's response to a GET request."""
    sent = ({} if anonymous else AUTHORIZATION) | headers
    response = Client(app).get(path, headers=sent, environ_overrides={"REMOTE_ADDR": PEER})
    return response.status_code, response.text
