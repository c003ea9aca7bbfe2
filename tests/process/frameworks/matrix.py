"""Each server with every framework that it can run, and the table of them in docs/frameworks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WSGI = ("Flask", "Django", "Falcon", "Bottle")
ASGI = ("Starlette", "FastAPI", "Litestar", "Django", "Quart", "Falcon")
ON_TRIO = ("Starlette", "FastAPI", "Litestar")  # the others need asyncio
WITH_WEBSOCKETS = ("Starlette", "FastAPI", "Litestar", "Quart", "Falcon")

# Middleware that replaces the socket's address with one from a header, each around one of the apps, and the denial that
# podproof logs. Werkzeug's keeps the original, which podproof finds.
_REWRITTEN = "peer-unknown: the address 127.0.0.2 may have been taken from a forwarded header"
WSGI_PROXIES = {
    "granian-proxy-headers": _REWRITTEN,
    "werkzeug-proxy-fix": "wrong-address: the connection comes from 127.0.0.3",
}
ASGI_PROXIES = {
    "granian-proxy-headers": _REWRITTEN,
    "hypercorn-proxy-fix": _REWRITTEN,
    "hypercorn-proxy-fix-modern": _REWRITTEN,
    "uvicorn-proxy-headers": _REWRITTEN,
}


@dataclass(frozen=True)
class Door:
    """A way without a middleware around the app. With `routes`, it is for some routes of the app.

    `websockets`: it has the caller of WebSockets; `has_denial_response`: and denies one with the whole response.
    """

    host: str
    framework: str
    routes: bool = False
    websockets: bool = False
    has_denial_response: bool = False


WSGI_DOORS = (Door("flask-blueprint", "Flask", routes=True), Door("django-middleware", "Django"))
ASGI_DOORS = (
    Door("fastapi-dependency", "FastAPI", routes=True, websockets=True, has_denial_response=True),
    Door("starlette-backend", "Starlette", websockets=True),
    Door("django-middleware", "Django"),
)


@dataclass(frozen=True)
class Kind:
    """A server as it is started: `command` comes after `python`.

    `has_denial_response`: it has ASGI's denial response extension, so that a denied WebSocket gets the whole response.
    `ends_by_two_closes`: it may end if both sides close a WebSocket at once, so the client has to wait for the app's.
    """

    name: str
    command: list[str]
    frameworks: tuple[str, ...]
    has_denial_response: bool = True
    ends_by_two_closes: bool = False

    @property
    def proxies(self) -> Mapping[str, str]:
        return WSGI_PROXIES if self.frameworks is WSGI else ASGI_PROXIES

    @property
    def doors(self) -> Sequence[Door]:
        """The doors that are tested on this server: those of its frameworks."""
        doors = WSGI_DOORS if self.frameworks is WSGI else ASGI_DOORS
        return [door for door in doors if door.framework in self.frameworks]

    def has_websockets(self, framework: str) -> bool:
        return self.frameworks is not WSGI and framework in WITH_WEBSOCKETS

    def protocols(self, framework: str) -> str:
        """Return the cell of the table: what is tested of a framework on this server."""
        if framework not in self.frameworks:
            return ""
        return "HTTP, WebSocket" if self.has_websockets(framework) else "HTTP"


_WSGI = "tests.process.frameworks.wsgi_apps:app"
_ASGI = "tests.process.frameworks.asgi_apps:app"
_BIND = ["--bind", "127.0.0.1:{port}"]
_PORT = ["--port", "{port}"]
_GUNICORN = ["-m", "gunicorn", "--no-control-socket", *_BIND]
_UVICORN_WORKER = ["--worker-class", "uvicorn_worker.UvicornWorker"]

SERVERS = (
    Kind("gunicorn, sync", [*_GUNICORN, _WSGI], WSGI),
    Kind("gunicorn, gthread", [*_GUNICORN, "--threads", "4", _WSGI], WSGI),
    Kind("gunicorn, gevent", [*_GUNICORN, "--worker-class", "gevent", _WSGI], WSGI),
    Kind("granian, wsgi", ["-m", "granian", "--interface", "wsgi", *_PORT, _WSGI], WSGI),
    Kind("Werkzeug", ["-m", "tests.process.frameworks.wsgi_apps", "{port}"], WSGI),
    Kind("uvicorn", ["-m", "uvicorn", "--no-proxy-headers", *_PORT, _ASGI], ASGI),
    Kind("gunicorn, asgi", [*_GUNICORN, "--worker-class", "asgi", _ASGI], ASGI, has_denial_response=False),
    Kind("gunicorn, uvicorn-worker", [*_GUNICORN, *_UVICORN_WORKER, _ASGI], ASGI),
    Kind("hypercorn, asyncio", ["-m", "hypercorn", *_BIND, _ASGI], ASGI),
    Kind(
        "hypercorn, trio",
        ["-m", "hypercorn", "--worker-class", "trio", *_BIND, _ASGI],
        ON_TRIO,
        ends_by_two_closes=True,
    ),
    Kind("granian, asgi", ["-m", "granian", "--interface", "asgi", *_PORT, _ASGI], ASGI),
)


def table() -> str:
    """Return the two tables of docs/frameworks.md: a server a row, a framework a column."""
    return "\n".join(
        "\n".join(
            [
                _row("", *frameworks),
                _row(*["---"] * (1 + len(frameworks))),
                *(
                    _row(server.name, *map(server.protocols, frameworks))
                    for server in SERVERS
                    if (server.frameworks is WSGI) == (frameworks is WSGI)
                ),
                "",
            ]
        )
        for frameworks in (WSGI, ASGI)
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
