"""One request through each HTTP library that `TokenClient.auth` supports."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests

from podproof.client import TokenClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@dataclass(frozen=True, kw_only=True)
class OutgoingRequest:
    url: str
    method: str = "GET"
    body: bytes | None = None
    streamed: bool = False
    headers: dict[str, str] | None = None
    trusted: str | None = None

    def pieces(self) -> Iterator[bytes]:
        yield self.body or b""

    async def async_pieces(self) -> AsyncIterator[bytes]:
        yield self.body or b""


SendRequest = Callable[[TokenClient, OutgoingRequest], tuple[int, str]]
"""Sends a request, follows redirects, and returns the status and the text of the last response."""


def _session(client: TokenClient, request: OutgoingRequest) -> tuple[int, str]:
    with client.session() as http:
        return _send_by_requests(http, request)


def _requests(client: TokenClient, request: OutgoingRequest) -> tuple[int, str]:
    with requests.Session() as http:
        return _send_by_requests(http, request, auth=client.auth)


def _send_by_requests(http: requests.Session, request: OutgoingRequest, **options: Any) -> tuple[int, str]:
    data = request.pieces() if request.streamed else request.body
    response = http.request(
        request.method,
        request.url,
        data=data,
        headers=request.headers,
        verify=request.trusted or True,
        timeout=10,
        **options,
    )
    return response.status_code, response.text


def _httpx(client: TokenClient, request: OutgoingRequest) -> tuple[int, str]:
    content = request.pieces() if request.streamed else request.body
    with httpx.Client(auth=client.auth, **_httpx_options(request)) as http:
        response = http.request(request.method, request.url, content=content, headers=request.headers)
    return response.status_code, response.text


def _httpx2(client: TokenClient, request: OutgoingRequest) -> tuple[int, str]:
    content = request.pieces() if request.streamed else request.body
    with httpx2.Client(auth=client.auth, **_httpx_options(request)) as http:
        response = http.request(request.method, request.url, content=content, headers=request.headers)
    return response.status_code, response.text


def _httpx_async(client: TokenClient, request: OutgoingRequest) -> tuple[int, str]:
    async def send() -> tuple[int, str]:
        content = request.async_pieces() if request.streamed else request.body
        async with httpx.AsyncClient(auth=client.auth, **_httpx_options(request)) as http:
            response = await http.request(request.method, request.url, content=content, headers=request.headers)
        return response.status_code, response.text

    return asyncio.run(send())


def _httpx2_async(client: TokenClient, request: OutgoingRequest) -> tuple[int, str]:
    async def send() -> tuple[int, str]:
        content = request.async_pieces() if request.streamed else request.body
        async with httpx2.AsyncClient(auth=client.auth, **_httpx_options(request)) as http:
            response = await http.request(request.method, request.url, content=content, headers=request.headers)
        return response.status_code, response.text

    return asyncio.run(send())


def _httpx_options(request: OutgoingRequest) -> dict[str, Any]:
    return {
        "follow_redirects": True,
        "timeout": 10,
        "verify": ssl.create_default_context(cafile=request.trusted) if request.trusted else False,
    }


LIBRARIES: dict[str, SendRequest] = {
    "session": _session,
    "requests": _requests,
    "httpx": _httpx,
    "httpx async": _httpx_async,
    "httpx2": _httpx2,
    "httpx2 async": _httpx2_async,
}

HTTPX = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
