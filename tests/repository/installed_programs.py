"""What users do with each extra: programs that the Python of an environment runs, with the wheel installed there.

`python installed_programs.py NAME...`. Each program imports what its extra brings, and prints what came of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.util import setup_testing_defaults

CALLERS_HALF = ["", ".audit", ".client", ".drain", ".drain.asgi", ".drain.wsgi", ".errors", ".identity", ".options"]


def base() -> None:
    """Send a token to a server."""
    for module in CALLERS_HALF:
        import_module(f"podproof{module}")
    from podproof import TokenClient

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers["Authorization"].encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    claims = {"aud": ["bob"], "exp": 4_000_000_000}
    token = ".".join(
        urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b"{}", json.dumps(claims).encode(), b"0")
    )
    Path("token").write_text(token)
    os.environ["PODPROOF_TOKEN_FILE"] = "token"
    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    with TokenClient(audience="bob").session() as http:
        received = http.get(f"http://127.0.0.1:{server.server_port}/").text
    print(received == f"Bearer {token}")
    server.shutdown()


def missing() -> None:
    """Import each part that has an extra, and print the errors."""
    import podproof
    from podproof._extras import EXTRAS

    modules = {path.stem for path in Path(podproof.__file__).parent.glob("*.py")}
    doors = [("podproof.testing", "Cluster")]
    doors += [(f"podproof.{name}", "__name__") for name in EXTRAS if name in modules]
    doors += [("podproof.grpc", "PodAuthInterceptor")]
    for module, name in doors:
        try:
            getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            print(error)


def ask_wsgi(app: Any) -> str:
    """Return the status of a request without a token."""
    environ: dict[str, Any] = {"REMOTE_ADDR": "10.0.0.7"}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    for _ in app(environ, lambda status, _headers, _error=None: statuses.append(status)):
        pass
    return statuses[0][:3]


def ask_asgi(app: Any) -> str:
    """Return the status of a request without a token."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
    }
    scope |= {"headers": [(b"host", b"bob")], "client": ("10.0.0.7", 4711), "server": ("bob", 80), "scheme": "http"}
    scope |= {"asgi": {"version": "3.0"}, "http_version": "1.1", "state": {}}
    sent: list[Any] = []
    received = [{"type": "http.request", "body": b"", "more_body": False}]

    responded = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if received:
            return received.pop()
        await responded.wait()
        return {"type": "http.disconnect"}  # Quart waits for it before it returns

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            responded.set()

    asyncio.run(app(scope, receive, send))
    return str(sent[0]["status"])


def wsgi() -> None:
    from podproof import RBAC, Rule
    from podproof.wsgi import PodAuthMiddleware

    def app(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b""]

    Rule("/*", allow=["default/alice"])
    RBAC(prefix="/bob")
    print(ask_wsgi(app), ask_wsgi(PodAuthMiddleware(app, audience="bob")))


def asgi() -> None:
    from podproof.asgi import PodAuthMiddleware

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    print(ask_asgi(app), ask_asgi(PodAuthMiddleware(app, audience="bob")))


def flask() -> None:
    from flask import Flask

    from podproof.flask import PodAuthMiddleware, caller

    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "open" if app.testing else str(caller.pod))
    app.testing = True
    before = ask_wsgi(app)
    app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience="bob")  # type: ignore[method-assign]
    print(before, ask_wsgi(app))


def starlette() -> None:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from podproof.asgi import PodAuthMiddleware

    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("open"))])
    print(ask_asgi(app), ask_asgi(PodAuthMiddleware(app, audience="bob")))


def fastapi() -> None:
    from fastapi import FastAPI

    from podproof.fastapi import Caller, PodAuthMiddleware

    app = FastAPI()
    app.add_api_route("/", lambda: "open")

    @app.get("/whoami")
    def whoami(caller: Caller) -> str:
        return str(caller.pod)

    print(ask_asgi(app), ask_asgi(PodAuthMiddleware(app, audience="bob")))


def django() -> None:
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    middleware = ["podproof.django.CallerMiddleware"]
    urls = type("urls", (), {"urlpatterns": [path("", lambda _: HttpResponse("open"))]})
    settings.configure(ROOT_URLCONF=urls, MIDDLEWARE=middleware, ALLOWED_HOSTS=["*"], SECRET_KEY="for this test")
    from podproof import asgi, wsgi

    by_wsgi, by_asgi = get_wsgi_application(), get_asgi_application()
    print(ask_wsgi(wsgi.PodAuthMiddleware(by_wsgi, audience="bob")), end=" ")
    print(ask_asgi(asgi.PodAuthMiddleware(by_asgi, audience="bob")))


def quart() -> None:
    from quart import Quart

    from podproof.quart import PodAuthMiddleware, caller

    app = Quart(__name__)
    app.add_url_rule("/", view_func=lambda: "open" if app.testing else str(caller.pod))
    app.testing = True
    before = ask_asgi(app)
    app.asgi_app = PodAuthMiddleware(app.asgi_app, audience="bob")  # type: ignore[method-assign, assignment]
    print(before, ask_asgi(app))


def litestar() -> None:
    from litestar import Litestar, get

    from podproof.litestar import CallerPlugin, PodAuthMiddleware

    @get("/", sync_to_thread=False)
    def home() -> str:
        return "open"

    app = Litestar([home], plugins=[CallerPlugin()])
    print(ask_asgi(app), ask_asgi(PodAuthMiddleware(app, audience="bob")))


def falcon() -> None:
    import falcon.asgi

    from podproof import asgi, wsgi
    from podproof.falcon import CallerMiddleware

    by_wsgi, by_asgi = falcon.App(middleware=[CallerMiddleware()]), falcon.asgi.App(middleware=[CallerMiddleware()])
    print(ask_wsgi(wsgi.PodAuthMiddleware(by_wsgi, audience="bob")), end=" ")
    print(ask_asgi(asgi.PodAuthMiddleware(by_asgi, audience="bob")))


def mcp() -> None:
    from mcp.server.mcpserver import MCPServer
    from starlette.responses import PlainTextResponse

    from podproof.mcp import PodAuthMiddleware

    app = MCPServer("bob").streamable_http_app()
    app.add_route("/", lambda _: PlainTextResponse("open"))
    print(ask_asgi(app), ask_asgi(PodAuthMiddleware(app, audience="bob")))


def grpc() -> None:
    """Call a server without a token, and print what its clients and servers need."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    from podproof.grpc import PodAuthInterceptor
    from podproof.grpc.aio import PodAuthInterceptor as AsyncPodAuthInterceptor

    AsyncPodAuthInterceptor(audience="bob")
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads, interceptors=[PodAuthInterceptor(audience="bob")])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary("/bob.Bob/WhoAmI")
            try:
                call(b"", timeout=10)
            except grpc.RpcError as error:
                print(error.code().name)
        server.stop(None).wait()


def grpc_client() -> None:
    """Make what a client needs, without the server's half."""
    from podproof import TokenClient
    from podproof.grpc import TokenInterceptor, call_credentials
    from podproof.grpc.aio import token_interceptors

    client = TokenClient("bob")
    TokenInterceptor(client)
    call_credentials(client)
    print(len(token_interceptors(client)), "interceptors, and", "kubernetes" in sys.modules)


def testing() -> None:
    from podproof.testing import Cluster

    with Cluster() as cluster:
        token = cluster.pod("default/alice-pod", service_account="alice").token("bob")
        print("a token of", len(token.split(".")), "parts")


def prometheus() -> None:
    import prometheus_client

    wsgi()
    print("podproof_decisions_total" in prometheus_client.generate_latest().decode())


def otel() -> None:
    from opentelemetry import trace

    with trace.get_tracer("test").start_as_current_span("request"):
        wsgi()


PROGRAMS: dict[str, Callable[[], None]] = {
    **{program.__name__: program for program in (base, missing, wsgi, asgi, flask, starlette, fastapi, django, quart)},
    **{program.__name__: program for program in (grpc, grpc_client, litestar, falcon, mcp, testing, prometheus, otel)},
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        PROGRAMS[name]()
