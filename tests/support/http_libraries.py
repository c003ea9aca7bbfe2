"""One request by each library that `TokenClient.auth` serves."""

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
class Call:
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


Send = Callable[[TokenClient, Call], tuple[int, str]]
"""Sends, follows redirects, and returns the status and the text of the last answer."""


def _session(client: TokenClient, call: Call) -> tuple[int, str]:
    with client.session() as http:
        return _requests_answer(http, call)


def _requests(client: TokenClient, call: Call) -> tuple[int, str]:
    with requests.Session() as http:
        return _requests_answer(http, call, auth=client.auth)


def _requests_answer(http: requests.Session, call: Call, **options: Any) -> tuple[int, str]:
    data = call.pieces() if call.streamed else call.body
    verify = call.trusted or True
    answer = http.request(call.method, call.url, data=data, headers=call.headers, verify=verify, timeout=10, **options)
    return answer.status_code, answer.text


def _httpx(client: TokenClient, call: Call) -> tuple[int, str]:
    content = call.pieces() if call.streamed else call.body
    with httpx.Client(auth=client.auth, **_httpx_options(call)) as http:
        answer = http.request(call.method, call.url, content=content, headers=call.headers)
    return answer.status_code, answer.text


def _httpx2(client: TokenClient, call: Call) -> tuple[int, str]:
    content = call.pieces() if call.streamed else call.body
    with httpx2.Client(auth=client.auth, **_httpx_options(call)) as http:
        answer = http.request(call.method, call.url, content=content, headers=call.headers)
    return answer.status_code, answer.text


def _httpx_async(client: TokenClient, call: Call) -> tuple[int, str]:
    async def talk() -> tuple[int, str]:
        content = call.async_pieces() if call.streamed else call.body
        async with httpx.AsyncClient(auth=client.auth, **_httpx_options(call)) as http:
            answer = await http.request(call.method, call.url, content=content, headers=call.headers)
        return answer.status_code, answer.text

    return asyncio.run(talk())


def _httpx2_async(client: TokenClient, call: Call) -> tuple[int, str]:
    async def talk() -> tuple[int, str]:
        content = call.async_pieces() if call.streamed else call.body
        async with httpx2.AsyncClient(auth=client.auth, **_httpx_options(call)) as http:
            answer = await http.request(call.method, call.url, content=content, headers=call.headers)
        return answer.status_code, answer.text

    return asyncio.run(talk())


def _httpx_options(call: Call) -> dict[str, Any]:
    return {
        "follow_redirects": True,
        "timeout": 10,
        "verify": ssl.create_default_context(cafile=call.trusted) if call.trusted else False,
    }


LIBRARIES: dict[str, Send] = {
    "session": _session,
    "requests": _requests,
    "httpx": _httpx,
    "httpx async": _httpx_async,
    "httpx2": _httpx2,
    "httpx2 async": _httpx2_async,
}

HTTPX = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
