"""Clients with Alice's token, or without any, at her pod's address."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient
from werkzeug.test import Client

from tests.support.fake_api import PEER, token

AUTHORIZATION = {"Authorization": f"Bearer {token()}"}
KNOWN = "default/alice in default/alice-pod"


def asgi(app: Any, *, known: bool = True) -> TestClient:
    return TestClient(app, client=(PEER, 4711), headers=AUTHORIZATION if known else {}, raise_server_exceptions=False)


def wsgi(app: Any, path: str, *, known: bool = True, **headers: str) -> tuple[int, str]:
    given = (AUTHORIZATION if known else {}) | headers
    answer = Client(app).get(path, headers=given, environ_overrides={"REMOTE_ADDR": PEER})
    return answer.status_code, answer.text
