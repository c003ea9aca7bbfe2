"""What the documentation's code runs on: an emulated cluster, Alice's pod in it, and a server at http://bob."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from flask import Flask
from starlette.testclient import TestClient
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

from podproof.flask import PodAuthMiddleware
from podproof.testing import Cluster
from tests.support.framework_apps import flask_app

ALICE = "10.0.0.7"
ELSEWHERE = "10.0.0.9"


class CallingPod(Protocol):
    """What is used of a pod of the emulated cluster."""

    @property
    def peer(self) -> tuple[str, int]:
        """Its address, and a port."""

    def headers(self, audience: str) -> dict[str, str]:
        """Return the headers of a request with a new token."""


@dataclass
class Stage:
    """A cluster, Alice's pod, the statuses of the responses from http://bob, and an empty directory."""

    cluster: Cluster
    alice: CallingPod
    directory: Path
    statuses: list[int] = field(default_factory=list)

    def check_app(self, app: Any) -> None:
        """Check that an app allows Alice at her pod's address, and denies every other request."""
        assert self.get(app) == (200, "default/alice")
        assert self.get(app, address=ELSEWHERE)[0] == 403
        assert self.get(app, headers=self.alice.headers("carol"))[0] == 401
        assert self.get(app, headers={})[0] == 401

    def get(
        self,
        app: Any,
        path: str = "/whoami",
        *,
        method: str = "GET",
        address: str = ALICE,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Return status and text of an app's response, WSGI or ASGI, by default to Alice."""
        sent = self.alice.headers("bob") if headers is None else dict(headers)
        if inspect.iscoroutinefunction(type(app).__call__):
            response = TestClient(app, client=(address, 4711)).request(method, path, headers=sent)
            return response.status_code, response.text.strip('"')
        received = Client(app).open(path, method=method, headers=sent, environ_overrides={"REMOTE_ADDR": address})
        return received.status_code, received.text


def wrapped_flask_app() -> Flask:
    app = flask_app()
    app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience="bob")  # type: ignore[method-assign]
    return app


@contextmanager
def serve_bob(statuses: list[int]) -> Iterator[int]:
    """Serve a Flask app behind podproof on a port of its own, and keep the status of each response."""
    app = wrapped_flask_app()

    def keep_status(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, *arguments: Any) -> Any:
            statuses.append(int(status[:3]))
            return start_response(status, *arguments)

        return app(environ, start)

    server = make_server("127.0.0.1", 0, keep_status, request_handler=_QuietHandler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass
