"""Apps that keep the context of a request, and report the caller that it holds after the response.

Paths under /inside pass through the middleware, those under /outside do not. The last part says what the app does:
`plain`, `stream`, `raise` and `nothing` keep the context and then respond, in parts or at all; `require` responds if
the caller is default/alice, and so does `exempt`, which needs no token. /outside/report reports on the last request
whose context was kept.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import Any

import anyio
import trio

from podproof import asgi, current_caller, require, wsgi
from podproof.errors import PodAuthError

ENDED = "tests.ended"
"""The key of an event in a scope or an environ: set when the middleware has finished with the request."""

CHUNKS = (b"one", b"two", b"three")
EXEMPT = ["/inside/exempt", "/healthz"]

_asgi_kept: list[tuple[KeptTaskRequest, anyio.Event]] = []
_wsgi_kept: list[tuple[KeptRequest, threading.Event]] = []
_tasks: list[object] = []


class KeptRequest:
    """The context of a request, and a thread and a task that were started in it and end after it."""

    def __init__(self) -> None:
        self._context = copy_context()
        self._callers: dict[str, str | None] = {}
        self._release = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._look_in_thread,), daemon=True)
        self._thread.start()

    def report(self) -> dict[str, str | None]:
        """Return the caller that the context, the thread and the task see now."""
        self._release.set()
        self._thread.join()
        self._callers["context"] = self._context.run(caller_name)
        return self._callers

    def _look_in_thread(self) -> None:
        self._release.wait()
        self._callers["thread"] = caller_name()


class KeptTaskRequest(KeptRequest):
    """A kept request of an ASGI app, which has started a task too."""

    def __init__(self) -> None:
        super().__init__()
        self._release_task, self._task_ended = anyio.Event(), anyio.Event()
        _start_task(self._look_in_task)

    async def report_all(self) -> dict[str, str | None]:
        """Return what `report` does, with the caller that the task sees."""
        self._release_task.set()
        await self._task_ended.wait()
        return self.report()

    async def _look_in_task(self) -> None:
        await self._release_task.wait()
        self._callers["task"] = caller_name()
        self._task_ended.set()


def caller_name() -> str | None:
    caller = current_caller()
    return None if caller is None else str(caller.service_account)


def _start_task(run: Callable[[], Awaitable[None]]) -> None:
    """Start a task that outlives the request, on asyncio or trio, with a copy of the context as each of them does."""
    context: Context = copy_context()
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _tasks.append(trio.lowlevel.spawn_system_task(run, context=context))
    else:
        _tasks.append(loop.create_task(run(), context=context))  # type: ignore[arg-type]  # it is a coroutine function


# ASGI


async def _respond(send: Any, status: int, *chunks: bytes) -> None:
    headers = [(b"content-length", str(sum(map(len, chunks))).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _asgi_inner(scope: Any, receive: Any, send: Any) -> None:
    action = scope["path"].rpartition("/")[2]
    if action in ("require", "exempt"):
        require("default/alice").check()
        await _respond(send, 200, b"allowed")
        return
    if action == "healthz":
        await _respond(send, 200, b"ok")
        return
    while (await receive()).get("more_body"):
        pass
    assert caller_name() is not None
    _asgi_kept.append((KeptTaskRequest(), scope[ENDED]))
    if action == "raise":
        raise ValueError("raised by the app")
    if action != "nothing":
        await _respond(send, 200, *(CHUNKS if action == "stream" else CHUNKS[:1]))


async def _asgi_report(send: Any) -> None:
    kept, ended = _asgi_kept[-1]
    await ended.wait()
    await _respond(send, 200, json.dumps(await kept.report_all()).encode())


_asgi_protected = asgi.PodAuthMiddleware(_asgi_inner, exempt=EXEMPT)


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/outside/report":
        await _asgi_report(send)
        return
    if scope["path"].startswith("/outside/"):
        try:
            await _asgi_inner(scope, receive, send)
        except PodAuthError as error:
            await _respond(send, error.status, b"denied")
        return
    scope[ENDED] = ended = anyio.Event()
    try:
        await _asgi_protected(scope, receive, send)
    finally:
        ended.set()


# WSGI


class EndingBody:
    """A body that sets an event once the server has closed it."""

    def __init__(self, body: Iterable[bytes], ended: threading.Event) -> None:
        self._body = body
        self._ended = ended

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._ended.set()


def _wsgi_inner(environ: dict[str, Any], start_response: Any) -> Any:
    action = environ["PATH_INFO"].rpartition("/")[2]
    if action in ("require", "exempt"):
        require("default/alice").check()
        return _start(start_response, "200 OK", b"allowed")
    if action == "healthz":
        return _start(start_response, "200 OK", b"ok")
    environ["wsgi.input"].read()
    assert caller_name() is not None
    _wsgi_kept.append((KeptRequest(), environ[ENDED]))
    if action == "raise":
        raise ValueError("raised by the app")
    if action == "nothing":
        return None
    return _start(start_response, "200 OK", *(CHUNKS if action == "stream" else CHUNKS[:1]))


def _start(start_response: Any, status: str, *chunks: bytes) -> Iterator[bytes]:
    start_response(status, [("Content-Length", str(sum(map(len, chunks))))])
    return iter(chunks)


_wsgi_protected = wsgi.PodAuthMiddleware(_wsgi_inner, exempt=EXEMPT)


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/outside/report":
        kept, ended = _wsgi_kept[-1]
        ended.wait()
        return _start(start_response, "200 OK", json.dumps(kept.report()).encode())
    if environ["PATH_INFO"].startswith("/outside/"):
        try:
            allowed: Iterable[bytes] = _wsgi_inner(environ, start_response)
        except PodAuthError as error:
            return _start(start_response, f"{error.status} Denied", b"denied")
        return allowed
    environ[ENDED] = ended = threading.Event()
    try:
        body = _wsgi_protected(environ, start_response)
    except BaseException:
        ended.set()
        raise
    return EndingBody(body, ended)
