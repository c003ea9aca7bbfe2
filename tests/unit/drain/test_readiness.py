"""The readiness endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import Client

from podproof.drain import is_draining
from podproof.drain.asgi import Message
from podproof.drain.asgi import ready as asgi_ready
from podproof.drain.shared_state import SHARED_STATE
from podproof.drain.wsgi import ready as wsgi_ready


@pytest.fixture
def draining() -> Iterator[None]:
    SHARED_STATE.drain_started = 1.0
    yield
    SHARED_STATE.drain_started = 0.0


async def receive_nothing() -> Message:
    raise NotImplementedError


def get_asgi() -> tuple[int, bytes]:
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(asgi_ready({"type": "http"}, receive_nothing, send))
    start, body = sent
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(body["body"])
    return start["status"], body["body"]


def get_wsgi() -> tuple[int, bytes]:
    response = Client(wsgi_ready).get("/")
    assert response.content_length == len(response.data)
    return response.status_code, response.data


def test_a_server_is_ready_before_a_drain() -> None:
    assert get_wsgi() == get_asgi() == (200, b"ready\n")
    assert not is_draining()


@pytest.mark.usefixtures("draining")
def test_a_draining_server_is_not_ready() -> None:
    assert get_wsgi() == get_asgi() == (503, b"draining\n")
    assert is_draining()
